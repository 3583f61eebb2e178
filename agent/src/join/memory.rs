//! What was found out about the senders of one connection, so that not every request asks anew.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{EndsOf, Of, sighting::Sighting};
use crate::{
    host::identify::Identifier,
    process::SharedIdentity,
    span::{Joined, Resource, ResourceSpans},
};

/// Resources remembered for one connection.
const MAX_RESOURCES: usize = 64;
/// Distinct services counted for one connection; more than one means a collector.
const MAX_SERVICES: usize = 4;
/// An answer is checked again after this long: the process may have ended and handed the
/// connection on, names may be known by now.
const LIFETIME: Duration = Duration::from_secs(10);
/// The same for an answer without a process.
const UNKNOWN_LIFETIME: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct SenderState {
    /// Who holds the connection since those that were found first have ended, or where nobody was
    /// found first.
    pub heirs: Option<Arc<Sighting>>,
    /// When it was last seen to whether there are any.
    looked_for_heirs: Option<Instant>,
    /// Distinct `(service, instance)`.
    services: Vec<(String, String)>,
    answers: Vec<Answer>,
}

/// A resource's answer, kept with the resource so that its address stays its own.
#[derive(Debug)]
pub(super) struct Answer {
    pub resource: Arc<Resource>,
    pub joined: Joined,
    /// What the identifier had of its process, before the resource's own names were added.
    pub looked: Option<SharedIdentity>,
    /// Its spans named connections.
    pub is_named: bool,
    pub at: Instant,
    pub services: usize,
    pub of: Of,
}

impl SenderState {
    /// Answers from memory; says which are open, and how many services came so far.
    pub fn answer_known(
        &mut self,
        of: Of,
        resources: &mut [ResourceSpans],
        identifier: &Identifier,
        ends: EndsOf<'_>,
    ) -> (Vec<usize>, usize) {
        // All first: a connection of several services is known as such from its first batch.
        for spans in &*resources {
            self.note_service(&spans.resource);
        }
        let mut open = Vec::new();
        for (index, spans) in resources.iter_mut().enumerate() {
            match self.answer(of, spans, identifier, ends) {
                Some(joined) => spans.joined = joined,
                None => open.push(index),
            }
        }
        (open, self.services.len())
    }

    /// Who is known to have inherited the connection, and whether to see to it now: only where it
    /// was answered before, and not all the time.
    pub fn heirs(&mut self, now: Instant) -> (Option<Arc<Sighting>>, bool) {
        let recently = |at: Instant| now.duration_since(at) < LIFETIME;
        let look = !self.answers.is_empty() && !self.looked_for_heirs.is_some_and(recently);
        if look {
            self.looked_for_heirs = Some(now);
        }
        (self.heirs.clone(), look)
    }

    fn note_service(&mut self, resource: &Resource) {
        let known = |(service, instance): &(String, String)| {
            *service == resource.service && *instance == resource.instance_id
        };
        if self.services.len() < MAX_SERVICES && !self.services.iter().any(known) {
            let service = (resource.service.clone(), resource.instance_id.clone());
            self.services.push(service);
        }
    }

    fn answer(
        &self,
        of: Of,
        spans: &ResourceSpans,
        identifier: &Identifier,
        ends: EndsOf<'_>,
    ) -> Option<Joined> {
        let known = |answer: &&Answer| Arc::ptr_eq(&answer.resource, &spans.resource);
        let answer = self.answers.iter().find(known)?;
        let lifetime = match answer.joined.identity {
            Some(_) => LIFETIME,
            None => UNKNOWN_LIFETIME,
        };
        let changed = |looked| identifier.has_changed(looked);
        // What was exported before its request was over names no connection; the request's own
        // span may follow at once, again and again.
        let can_tell_more =
            || answer.joined.identity.is_none() && !answer.is_named && !ends(spans).is_empty();
        let valid = answer.at.elapsed() < lifetime
            && answer.services == self.services.len()
            // Of one that sent logs only, nobody was told.
            && (of == Of::Logs || answer.of == Of::Spans)
            && !answer.looked.as_ref().is_some_and(changed)
            && !can_tell_more();
        valid.then(|| answer.joined.clone())
    }

    pub fn remember(&mut self, answer: Answer) {
        self.answers
            .retain(|known| !Arc::ptr_eq(&known.resource, &answer.resource));
        if self.answers.len() >= MAX_RESOURCES {
            self.answers.remove(0);
        }
        self.answers.push(answer);
    }
}
