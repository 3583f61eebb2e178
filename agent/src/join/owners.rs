//! Whose logs are: the same question as whose spans are, of which nobody else is told.

use std::sync::Arc;

use super::{Joiner, Of, Sender};
use crate::{
    span::{Joined, Resource, ResourceSpans},
    vocabulary::Confidence,
    workload::Workload,
};

impl Joiner {
    /// Whose logs of these resources are that came over this connection, one for each: found as by
    /// [`Joiner::join`]; empty where that is not known. All of it is what this host knows: what
    /// only a resource says of itself is left out.
    pub async fn owners(&self, sender: &Sender, resources: Vec<Arc<Resource>>) -> Vec<Workload> {
        let open = |resource| ResourceSpans {
            spans: 0..0,
            resource,
            joined: Joined {
                identity: None,
                confidence: Confidence::Host,
            },
        };
        let mut resources: Vec<ResourceSpans> = resources.into_iter().map(open).collect();
        self.join_those(Of::Logs, sender, &mut resources, &|_| Vec::new())
            .await;
        let known = |resource: ResourceSpans| {
            let process = resource.joined.identity?.process;
            let identity = self.shared.identifier.known(process)?;
            Some(identity.workload.clone())
        };
        let known = |resource| known(resource).unwrap_or_default();
        resources.into_iter().map(known).collect()
    }
}
