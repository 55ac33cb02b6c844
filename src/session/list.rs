//! Lists of several pages: the assets of a project, the projects of a portal.

use std::collections::BTreeSet;

use tokio::time::Instant;

use super::rate_limiter::RequestKind;
use super::{Session, is_too_late};
use crate::aws::error::{CallFailure, FailureClass};
use crate::aws::sitewise::{Page, ProjectSummary};
use crate::input::id::{AssetId, PortalId, ProjectId};

/// What a list shows.
#[derive(Debug)]
pub struct List<T> {
    /// The entries that were read.
    pub entries: BTreeSet<T>,
    /// Whether it has several pages.
    pub has_several_pages: bool,
    /// Whether it is complete.
    pub result: Result<(), CallFailure>,
    /// Whether it is not complete because there was no more time.
    pub is_cut_off: bool,
}

impl<T> List<T> {
    /// Returns the entries of a complete list.
    pub fn complete(self) -> Result<BTreeSet<T>, CallFailure> {
        self.result.map(|()| self.entries)
    }
}

impl Session<'_> {
    /// Lists a project's assets before `stop`. `on_first_page` is called whenever
    /// the first page of the first pass is asked for.
    pub async fn list_assets(
        &self,
        project: ProjectId,
        stop: Instant,
        on_first_page: impl Fn(),
    ) -> List<AssetId> {
        let page = |token: Option<String>| async move {
            self.sitewise.list_assets(project, token.as_deref()).await
        };
        let describe = || self.sitewise.describe_project(project);
        self.list(page, on_first_page, describe, stop).await
    }

    /// Lists a portal's projects before `stop`.
    pub async fn list_projects(&self, portal: PortalId, stop: Instant) -> List<ProjectSummary> {
        let page = |token: Option<String>| async move {
            self.sitewise.list_projects(portal, token.as_deref()).await
        };
        let describe = || self.sitewise.describe_portal(portal);
        let mut list = self.list(page, || {}, describe, stop).await;
        // One that is renamed between two reads has two names.
        let mut last = None;
        list.entries
            .retain(|project| last.replace(project.id) != Some(project.id));
        list
    }

    /// Lists whatever `page` returns the pages of.
    ///
    /// A list of several pages is read twice, for entries may move from one page
    /// to another meanwhile; what either pass shows counts as listed. Where the
    /// list is empty or refused, what it belongs to may not exist: `describe` then
    /// says so, with an error of which [`CallFailure::is_not_found`] is true.
    async fn list<T: Ord, P, D>(
        &self,
        page: impl Fn(Option<String>) -> P,
        on_first_page: impl Fn(),
        describe: impl Fn() -> D,
        stop: Instant,
    ) -> List<T>
    where
        P: Future<Output = Result<Page<T>, CallFailure>>,
        D: Future<Output = Result<(), CallFailure>>,
    {
        let mut list = List {
            entries: BTreeSet::new(),
            has_several_pages: false,
            result: Ok(()),
            is_cut_off: false,
        };
        let result = self.read_pages(&mut list, page, on_first_page, describe, stop);
        list.result = result.await;
        let is_unread = matches!(&list.result, Err(error) if !error.is_not_found());
        list.is_cut_off = is_unread && is_too_late(Instant::now(), stop);
        list
    }

    async fn read_pages<T: Ord, P, D>(
        &self,
        list: &mut List<T>,
        page: impl Fn(Option<String>) -> P,
        on_first_page: impl Fn(),
        describe: impl Fn() -> D,
        stop: Instant,
    ) -> Result<(), CallFailure>
    where
        P: Future<Output = Result<Page<T>, CallFailure>>,
        D: Future<Output = Result<(), CallFailure>>,
    {
        for is_first_pass in [true, false] {
            let mut token: Option<String> = None;
            loop {
                let send = || {
                    if is_first_pass && token.is_none() {
                        on_first_page();
                    }
                    page(token.clone())
                };
                let read = match self.request(RequestKind::Read, stop, send).await {
                    Err(error) if error.class == FailureClass::Refused => {
                        self.request(RequestKind::Read, stop, &describe).await?;
                        let class = FailureClass::Unexpected;
                        return Err(CallFailure { class, ..error });
                    }
                    read => read?,
                };
                list.entries.extend(read.entries);
                token = read.next;
                if token.is_none() {
                    break;
                }
                list.has_several_pages = true;
            }
            if !list.has_several_pages {
                break;
            }
        }
        if list.entries.is_empty() {
            self.request(RequestKind::Read, stop, &describe).await?;
        }
        Ok(())
    }
}
