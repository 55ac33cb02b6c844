//! Finds out which assets a message is for: those that it names, or those that its
//! project lists.
//!
//! Owns what becomes of a message before any call: what is malformed, what is cut
//! into parts, and what a dry run reports. It makes no call, only reads.

use std::borrow::Cow;
use std::collections::HashSet;

use tokio::time::Instant;

use crate::aws::sitewise::ProjectSummary;
use crate::input::id::{AssetId, PortalId, ProjectId};
use crate::input::received::{ReadError, Received};
use crate::input::request::{NamedAssets, Request, Scope};
use crate::outcome::{DryRun, DryRunProject, Failure, Outcome, code};
use crate::plan::PlanInput;
use crate::session::{Session, too_late};
use crate::settle::{Item, ItemOutcomes};

/// What a message comes to.
#[derive(Debug, Default)]
pub struct Resolution<'a> {
    /// The assets that are to be disassociated now.
    pub assets: Cow<'a, [AssetId]>,
    /// What became of everything else so far, bad ids aside.
    pub outcomes: ItemOutcomes,
    /// What a dry run found.
    pub dry_run: Option<DryRun>,
    /// The project to list again after the calls, because its list had several
    /// pages: entries may have moved from one to another meanwhile.
    pub listed_again: Option<ProjectId>,
}

impl Resolution<'_> {
    /// Makes the resolution of a message that ends as a whole.
    pub fn whole(outcome: Outcome) -> Self {
        Self {
            outcomes: vec![(Item::Message, outcome)],
            ..Self::default()
        }
    }

    /// Returns what is to be planned for the message, if anything is.
    pub fn plan_input<'b>(&'b self, received: &'b Received<'_>) -> Option<PlanInput<'b>> {
        let request = received.request.as_ref().ok()?;
        (!self.assets.is_empty()).then_some(PlanInput {
            project: request.project()?,
            assets: &self.assets,
            is_whole_project: request.named().is_none(),
            client_token: request.client_token.as_ref(),
            message_id: &received.id,
            receives: received.message.receives,
        })
    }

    /// Notes what became of the assets that were to be disassociated.
    pub fn conclude(&mut self, outcomes: Vec<Outcome>) {
        let assets = std::mem::take(&mut self.assets);
        let assets = assets.iter().copied().map(Item::Asset);
        self.outcomes.extend(assets.zip(outcomes));
    }
}

/// Resolves the messages of one invocation.
#[derive(Clone, Copy, Debug)]
pub struct Resolver<'a> {
    /// The way to SiteWise.
    pub session: &'a Session<'a>,
    /// The largest request, in assets, that is processed at once; `None` where
    /// there is no work queue for parts of a larger one.
    pub fan_out_assets: Option<usize>,
    /// When a list must be read.
    pub stop: Instant,
}

impl Resolver<'_> {
    /// Resolves each message.
    pub async fn resolve<'a>(&self, received: &'a [Received<'_>]) -> Vec<Resolution<'a>> {
        let resolutions = received.iter().map(|one| self.resolve_one(one));
        self.session.run_all(resolutions).await
    }

    async fn resolve_one<'a>(&self, received: &'a Received<'_>) -> Resolution<'a> {
        let request = match &received.request {
            Ok(request) => request,
            Err(error) => return Resolution::whole(unread(error)),
        };
        match &request.scope {
            Scope::Assets(named) if request.dry_run => self.dry_run_of_assets(named).await,
            Scope::Project(project) if request.dry_run => self.dry_run_of_project(*project).await,
            Scope::Portal(portal) if request.dry_run => self.dry_run_of_portal(*portal).await,
            Scope::Assets(named) => self.cut(Cow::Borrowed(&named.valid), request),
            Scope::Project(project) => self.project(*project, request).await,
            Scope::Portal(portal) => self.portal(*portal).await,
        }
    }

    /// Leaves the assets of a large request to its parts.
    fn cut<'a>(&self, assets: Cow<'a, [AssetId]>, request: &Request) -> Resolution<'a> {
        // A part made of assets is never cut again.
        let is_cut_already = request.is_part && request.named().is_some();
        let is_large = self.fan_out_assets.is_some_and(|most| assets.len() > most);
        let mut resolution = Resolution::default();
        if is_large && !is_cut_already {
            let assets = assets.iter().copied().map(Item::Asset);
            let deferred = assets.map(|asset| (asset, Outcome::Deferred));
            resolution.outcomes.extend(deferred);
        } else {
            resolution.assets = assets;
        }
        resolution
    }

    /// Lists the assets of a whole project. A list that ran out of time yields what
    /// it showed.
    async fn project(&self, project: ProjectId, request: &Request) -> Resolution<'static> {
        let list = self.session.list_assets(project, self.stop, || {}).await;
        let assets = list.entries.into_iter().collect();
        match list.result {
            Ok(()) => {
                let resolution = self.cut(Cow::Owned(assets), request);
                let has_calls = !resolution.assets.is_empty();
                Resolution {
                    listed_again: (list.has_several_pages && has_calls).then_some(project),
                    ..resolution
                }
            }
            Err(error) if list.is_cut_off => Resolution {
                assets: Cow::Owned(assets),
                ..Resolution::whole(Outcome::Unfinished(error.failure))
            },
            Err(error) => Resolution::whole(error.into_outcome()),
        }
    }

    /// Lists the projects of a portal, each for a part of its own.
    async fn portal(&self, portal: PortalId) -> Resolution<'static> {
        if self.fan_out_assets.is_none() {
            let message = "allProjects: expected a function with WORK_QUEUE_URL, found none: \
                           the projects of a portal go through the work queue";
            let failure = Failure::new(code::INVALID_REQUEST, message);
            return Resolution::whole(Outcome::Rejected(failure));
        }
        let list = self.session.list_projects(portal, self.stop).await;
        match list.complete() {
            Ok(projects) => Resolution {
                outcomes: (projects.into_iter())
                    .map(|project| (Item::Project(project.id), Outcome::Deferred))
                    .collect(),
                ..Resolution::default()
            },
            Err(error) => Resolution::whole(error.into_outcome()),
        }
    }

    /// Lists a project again after its calls, and leaves in `resolution` the assets
    /// that are listed and that no call of this invocation has taken out or failed
    /// for. `removed` are those taken out for any message.
    pub async fn list_again(
        &self,
        resolution: &mut Resolution<'_>,
        removed: &HashSet<(ProjectId, AssetId)>,
    ) {
        let Some(project) = resolution.listed_again.take() else {
            return;
        };
        let list = self.session.list_assets(project, self.stop, || {}).await;
        match list.complete() {
            Ok(mut listed) => {
                listed.retain(|asset| !removed.contains(&(project, *asset)));
                resolution.outcomes.retain(|(item, outcome)| match item {
                    Item::Asset(asset) if *outcome == Outcome::Absent => !listed.contains(asset),
                    Item::Asset(asset) => {
                        listed.remove(asset);
                        true
                    }
                    _ => true,
                });
                resolution.assets = listed.into_iter().collect();
            }
            Err(error) if error.is_not_found() => {}
            Err(error) => {
                let outcome = Outcome::Unfinished(error.failure);
                resolution.outcomes.push((Item::Message, outcome));
            }
        }
    }

    async fn dry_run_of_assets(&self, named: &NamedAssets) -> Resolution<'static> {
        let list = self.session.list_assets(named.project, self.stop, || {});
        let would_disassociate = match list.await.complete() {
            Ok(listed) => {
                let assets = named.valid.iter();
                assets.filter(|asset| listed.contains(asset)).count()
            }
            Err(error) if error.is_not_found() => {
                let assets = named.valid.iter().copied().map(Item::Asset);
                let outcome = Outcome::Rejected(error.failure);
                let outcomes = assets.map(|asset| (asset, outcome.clone()));
                return dry_run(0, 0, outcomes.collect());
            }
            Err(error) => return Resolution::whole(error.into_outcome()),
        };
        let absent = named.valid.len() - would_disassociate;
        dry_run(would_disassociate, absent, Vec::new())
    }

    async fn dry_run_of_project(&self, project: ProjectId) -> Resolution<'static> {
        let list = self.session.list_assets(project, self.stop, || {}).await;
        match list.complete() {
            Ok(listed) => dry_run(listed.len(), 0, Vec::new()),
            Err(error) => Resolution::whole(error.into_outcome()),
        }
    }

    async fn dry_run_of_portal(&self, portal: PortalId) -> Resolution<'static> {
        let list = self.session.list_projects(portal, self.stop).await;
        let projects = match list.complete() {
            Ok(projects) => projects,
            Err(error) => return Resolution::whole(error.into_outcome()),
        };
        let mut outcomes = Vec::new();
        let mut found = Vec::with_capacity(projects.len());
        let lists = projects.iter().map(|project| async {
            let list = self.session.list_assets(project.id, self.stop, || {}).await;
            let is_cut_off = list.is_cut_off;
            (list.complete(), is_cut_off)
        });
        let lists = self.session.run_all(lists).await;
        for (project, (list, is_cut_off)) in projects.iter().zip(lists) {
            let ProjectSummary { id, name } = project.clone();
            let assets = match list {
                Ok(listed) => Ok(listed.len()),
                Err(_) if is_cut_off => Err(too_late(None)),
                Err(error) => {
                    let failure = error.failure.clone();
                    if !error.is_not_found() && outcomes.is_empty() {
                        outcomes.push((Item::Message, error.into_outcome()));
                    }
                    Err(failure)
                }
            };
            found.push(DryRunProject {
                project: id,
                name,
                assets,
            });
        }
        Resolution {
            outcomes,
            dry_run: Some(DryRun::Projects(found)),
            ..Resolution::default()
        }
    }
}

fn dry_run(
    would_disassociate: usize,
    absent: usize,
    outcomes: ItemOutcomes,
) -> Resolution<'static> {
    Resolution {
        outcomes,
        dry_run: Some(DryRun::Assets {
            would_disassociate,
            absent,
        }),
        ..Resolution::default()
    }
}

/// Returns the assets that calls for any message have taken out of the projects that
/// are listed again.
pub fn removed(
    received: &[Received<'_>],
    resolutions: &[Resolution<'_>],
) -> HashSet<(ProjectId, AssetId)> {
    let listed_again = resolutions.iter().filter_map(|one| one.listed_again);
    let listed_again: HashSet<ProjectId> = listed_again.collect();
    let messages = received.iter().zip(resolutions);
    let removed = messages.filter_map(|(received, resolution)| {
        let project = received.request.as_ref().ok()?.project()?;
        if !listed_again.contains(&project) {
            return None;
        }
        let outcomes = resolution.outcomes.iter();
        Some(outcomes.filter_map(move |(item, outcome)| match item {
            Item::Asset(asset) if *outcome == Outcome::Disassociated => Some((project, *asset)),
            _ => None,
        }))
    });
    removed.flatten().collect()
}

/// Returns what becomes of a message that has no request.
pub fn unread(error: &ReadError) -> Outcome {
    match error {
        ReadError::Malformed(error) => {
            Outcome::Rejected(Failure::new(code::INVALID_REQUEST, error.to_string()))
        }
        ReadError::Panicked => {
            let message = "the function failed on this message";
            Outcome::Unfinished(Failure::new(code::INTERNAL_ERROR, message))
        }
    }
}
