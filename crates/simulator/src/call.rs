//! The record of one request.

use std::collections::BTreeMap;
use std::time::Duration;

/// The operations that the simulator knows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Operation {
    /// `BatchDisassociateProjectAssets`
    Disassociate,
    /// `ListProjectAssets`
    ListProjectAssets,
    /// `DescribeProject`
    DescribeProject,
    /// `ListProjects`
    ListProjects,
    /// `DescribePortal`
    DescribePortal,
    /// SQS `SendMessage`
    SendMessage,
    /// SQS `SendMessageBatch`
    SendMessageBatch,
    /// anything else
    Other,
}

/// A request that the simulator has seen.
#[derive(Clone, Debug)]
pub struct Call {
    /// its place among all, from 0, those forgotten included
    pub seq: usize,
    /// when it arrived, since the simulator was made
    pub at: Duration,
    /// what it asked for
    pub operation: Operation,
    /// the HTTP method
    pub method: String,
    /// the host it was sent to, with the port where there is one
    pub host: String,
    /// the path
    pub path: String,
    /// the headers, by lowercase names
    pub headers: BTreeMap<String, String>,
    /// the project, of a SiteWise call about one
    pub project: Option<String>,
    /// the portal, of a SiteWise call about one
    pub portal: Option<String>,
    /// the assets, of a disassociation
    pub assets: Vec<String>,
    /// the assets that a 200's errors name, of a disassociation
    pub failed: Vec<String>,
    /// the assets or projects on the page, of a list that got as far as that; a fault may
    /// break the page afterwards
    pub listed: Vec<String>,
    /// the client token, of a disassociation
    pub token: Option<String>,
    /// the queue's name, of an SQS call
    pub queue: Option<String>,
    /// the message bodies, of an SQS call that sends
    pub bodies: Vec<String>,
    /// the status that was answered; `None` where there was no answer
    pub status: Option<u16>,
    /// whether it was carried out: neither refused nor replayed, answered or not
    pub applied: bool,
    /// what is wrong with the request, if anything is
    pub invalid: Option<String>,
    /// the body
    pub body: String,
}

impl Call {
    /// Returns whether it is a request to SiteWise.
    pub fn is_sitewise(&self) -> bool {
        self.project.is_some() || self.portal.is_some()
    }
}
