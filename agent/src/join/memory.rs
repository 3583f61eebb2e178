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
/// Most that passes between two searches for whoever holds a connection.
const MAX_PAUSE: Duration = Duration::from_secs(5 * 60);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct SenderState {
    /// Who holds the connection since those that were found first have ended, or where nobody was
    /// found first.
    pub heirs: Option<Arc<Sighting>>,
    /// How often that changed.
    changes: u64,
    /// When it is to be seen to whether there are any, again.
    next_look: Option<Instant>,
    /// How long the last search that found nobody is to be the last one.
    pause: Duration,
    /// Distinct `(service, instance)`.
    services: Vec<(String, String)>,
    answers: Vec<Answer>,
}

/// What a look at whoever holds a connection by now came to.
#[derive(Debug)]
pub(super) enum Look {
    /// There was no need, or no time.
    None,
    /// Nobody was found.
    Nobody,
    /// Who it is.
    Found(Arc<Sighting>),
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

    /// Who is known to have inherited the connection, and as of which change.
    pub fn heirs(&self) -> (Option<Arc<Sighting>>, u64) {
        (self.heirs.clone(), self.changes)
    }

    /// Whether to see now to who holds the connection: only where it was answered before, and not
    /// all the time.
    pub fn is_look_due(&mut self, now: Instant) -> bool {
        let is_due = !self.answers.is_empty() && self.next_look.is_none_or(|at| at <= now);
        if is_due {
            // By then it has come to something.
            self.next_look = Some(now + LIFETIME);
        }
        is_due
    }

    /// What that came to. What was answered before is asked anew where that is another one.
    pub fn looked(&mut self, look: Look, now: Instant) {
        match look {
            Look::None => {}
            Look::Nobody => {
                self.pause = (self.pause * 2).clamp(LIFETIME, MAX_PAUSE);
                self.next_look = Some(now + self.pause);
            }
            Look::Found(heirs) => {
                self.pause = Duration::ZERO;
                self.heirs = Some(heirs);
                self.changes += 1;
                self.answers.clear();
            }
        }
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

    /// `as_of`: see [`SenderState::heirs`].
    pub fn remember(&mut self, answer: Answer, as_of: u64) {
        if as_of != self.changes {
            return; // it was about who held the connection before
        }
        self.answers
            .retain(|known| !Arc::ptr_eq(&known.resource, &answer.resource));
        if self.answers.len() >= MAX_RESOURCES {
            self.answers.remove(0);
        }
        self.answers.push(answer);
    }
}
