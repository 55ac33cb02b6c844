//! Derives client tokens and deduplication ids.
//!
//! Owns what a token depends on: the same fields give the same token, anything
//! else another one.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use crate::input::id::{AssetId, ClientToken, ProjectId};

/// Derives a client token: SHA-256 over length-prefixed fields, in
/// hexadecimal, which is 64 characters, as long as a token may be.
pub(crate) struct Derivation(Sha256);

impl Derivation {
    pub(crate) fn new(purpose: &str) -> Self {
        let mut derivation = Self(Sha256::new());
        derivation.text(purpose);
        derivation
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.number(text.len());
        self.0.update(text.as_bytes());
    }

    pub(crate) fn number(&mut self, number: usize) {
        self.0.update((number as u64).to_be_bytes());
    }

    /// Adds assets as a set: their order makes no difference.
    pub(crate) fn assets(&mut self, assets: &[AssetId]) {
        let mut sorted = assets.to_vec();
        sorted.sort_unstable();
        self.number(sorted.len());
        for asset in sorted {
            self.0.update(asset.as_bytes());
        }
    }

    pub(crate) fn project(&mut self, project: ProjectId) {
        self.0.update(project.as_bytes());
    }

    pub(crate) fn call(
        mut self,
        project: ProjectId,
        assets: &[AssetId],
        round: u32,
    ) -> ClientToken {
        self.number(round as usize);
        self.project(project);
        self.assets(assets);
        self.finish()
    }

    pub(crate) fn finish(self) -> ClientToken {
        let mut token = String::with_capacity(64);
        for byte in self.0.finalize() {
            write!(token, "{byte:02x}").expect("writing to a String cannot fail");
        }
        token
            .parse()
            .expect("64 hexadecimal digits are a client token")
    }
}
