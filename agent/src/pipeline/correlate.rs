//! Brings a span, its children and the delays that it is measured by together, and has it
//! judged.

use std::{collections::HashMap, sync::Arc};

use crate::{
    pipeline::{
        asks::Asks,
        baseline::{Baselines, OperationKey, ServiceKey},
        behind,
        children::{ChildIndex, Parent},
        consumers::Consumers,
        contexts::Contexts,
        culprit::windows,
        evidence,
        fault::{Circumstances, fault_of},
        held::Held,
        incident::{Incidents, Story},
        intervals,
        judge::{self, Case, Nature, Rules},
        kills::Kills,
        losses::Losses,
        place::{Place, Unjudged, place},
        requests::{Requests, Worker},
        resends::Resends,
        retries::Retries,
        scope::{self, Scope, Scopes},
        split::Sweep,
        timeline::{Entry, Timeline},
        turns::Turns,
        waits::{heaviest, waits},
    },
    process::Identity,
    span::{Joined, ResourceSpans, SpanBatch, SpanView},
    time::{MonoNs, UnixNs, WallClock},
    verdict::{CauseInterval, Judgement, Split, Verdict},
    vocabulary::{Cause, Confidence, Fault},
};

const CLIENT: i32 = 3; // `SpanKind` of a call, which ends with its answer
/// Children and delays that one span may have.
const MAX_PER_SPAN: usize = 1 << 16;
/// Children and delays that the spans of one batch may have together. A child has one parent
/// and ids are unique, so honest batches stay far below.
const MAX_PER_BATCH: usize = 1 << 22;

/// What the spans of a batch came to.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    pub(super) joined: u64,
    /// In the order of [`Confidence::ALL`].
    pub(super) joins: [u64; Confidence::ALL.len()],
    /// In the order of [`Unjudged::ALL`].
    pub(super) unjudged: [u64; Unjudged::ALL.len()],
}

/// Judges batches; owns what is kept from span to span to save allocations.
#[derive(Debug)]
pub(super) struct Correlator {
    rules: Rules,
    sweep: Sweep,
    scopes: Scopes,
    retries: Retries,
    resends: Resends,
    kills: Kills,
    held: Held<Cause>,
    incidents: Incidents,
    counts: Counts,
    /// What is left of [`MAX_PER_BATCH`].
    budget: usize,
}

/// What a batch is judged against.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) clock: &'a WallClock,
    /// Before it nothing is kept.
    pub(super) horizon: MonoNs,
    pub(super) timeline: &'a Timeline,
    pub(super) turns: &'a Turns,
    pub(super) asks: &'a Asks,
    pub(super) contexts: &'a Contexts,
    pub(super) consumers: &'a Consumers,
    pub(super) losses: &'a Losses,
    pub(super) children: &'a ChildIndex,
}

/// The resource of some spans of a batch, and what their operations are called by; nothing of one
/// that is not joined.
struct Service<'a> {
    resource: &'a ResourceSpans,
    key: Option<ServiceKey<'a>>,
}

/// One span, and what it is judged against.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) span: &'a SpanView,
    pub(super) parent: Parent,
    pub(super) place: Place,
    pub(super) identity: &'a Identity,
    pub(super) context: Context<'a>,
}

/// What is named.
type Blamed = (Cause, Fault);

impl<'a> Asked<'a> {
    /// When its children were, by its own clock, in wall time.
    pub(super) fn children(self) -> impl Iterator<Item = (u64, u64)> + 'a {
        let is_call = self.span.kind == CLIENT;
        let whole = (self.span.start_unix_ns, self.span.end_unix_ns);
        let children = self.context.children.of(self.parent);
        children.map(move |child| match is_call {
            true => child.by_clock_of_call(whole),
            // What it did not wait for may go on after it.
            false => (child.start_unix_ns, child.end_unix_ns),
        })
    }

    /// What is known of the delays of a cause.
    fn circumstances(self, scope: &Scope, cause: Cause) -> Circumstances {
        let Self {
            place, identity, ..
        } = self;
        let Context {
            timeline,
            consumers,
            losses,
            ..
        } = self.context;
        let waits = waits(cause, place, scope, identity, timeline, &mut |_| {});
        let known = Circumstances::of(identity.stack.layer()).with(&heaviest(&waits));
        let may_be_no_disk = cause == Cause::BlockQueue && known.is_only_a_call;
        // What was not told is no sign of an idle disk.
        let is_told = || {
            let saves = losses.saving(place.start, place.end());
            losses.within(place.start, place.end()) == 0 && !saves.contains(&"block")
        };
        let is_idle = || consumers.were_disks_idle(&windows(&waits));
        Circumstances {
            is_beyond_disks: may_be_no_disk && is_idle() && is_told(),
            ..known
        }
    }
}

impl Correlator {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            rules,
            sweep: Sweep::default(),
            scopes: Scopes::default(),
            retries: Retries::default(),
            resends: Resends::default(),
            kills: Kills::default(),
            held: Held::default(),
            incidents: Incidents::default(),
            counts: Counts::default(),
            budget: 0,
        }
    }

    /// One judgement for each span, in order.
    pub(super) fn judge(
        &mut self,
        batch: &SpanBatch,
        context: Context<'_>,
        requests: &mut Requests,
        baselines: &mut Baselines,
    ) -> (Vec<Judgement>, Counts) {
        self.counts = Counts::default();
        self.budget = MAX_PER_BATCH;
        // All first, as what one request is given is not the others'.
        let workers = scope::find_workers(batch, context, requests);
        let ids = batch.spans.iter().map(|span| (span.trace_id, span.span_id));
        let parents: Vec<Parent> = context.children.places_of(ids);
        let nobody = Joined {
            identity: None,
            confidence: Confidence::Host,
        };
        let names = baselines.names();
        let mut judgements = Vec::with_capacity(batch.spans.len());
        for resource in &batch.resources {
            let spans = batch.spans.get(resource.spans.clone()).unwrap_or_default();
            // Ranges follow each other; a hole would be spans of nobody.
            while judgements.len() < resource.spans.start.min(batch.spans.len()) {
                judgements.push(self.unjudged(&nobody, Unjudged::NotJoined));
            }
            let of =
                Service {
                    resource,
                    key: resource.joined.identity.as_ref().map(|identity| {
                        names.service(&identity.workload, &resource.resource.service)
                    }),
                };
            let known = workers.iter().zip(&parents).skip(resource.spans.start);
            for span in spans.iter().zip(known) {
                judgements.push(self.span(batch, &of, span, context, requests, baselines));
            }
        }
        while judgements.len() < batch.spans.len() {
            judgements.push(self.unjudged(&nobody, Unjudged::NotJoined));
        }
        (judgements, std::mem::take(&mut self.counts))
    }

    fn span(
        &mut self,
        batch: &SpanBatch,
        of: &Service<'_>,
        (span, (worker, parent)): (&SpanView, (&Worker, &Parent)),
        context: Context<'_>,
        requests: &Requests,
        baselines: &mut Baselines,
    ) -> Judgement {
        let resource = of.resource;
        let joined = &resource.joined;
        let (Some(identity), Some(key)) = (&joined.identity, &of.key) else {
            return self.unjudged(joined, Unjudged::NotJoined);
        };
        let place = match place(span, context.clock, batch.received, context.horizon) {
            Ok(place) => place,
            Err(reason) => return self.unjudged(joined, reason),
        };
        if self.budget == 0 {
            return self.unjudged(joined, Unjudged::WorkLimit);
        }
        let scope = self
            .scopes
            .of(resource, (span, *worker), place, context, requests);
        let joined = &Joined {
            identity: joined.identity.clone(),
            confidence: scope.confidence,
        };
        let asked = Asked {
            span,
            parent: *parent,
            place,
            identity,
            context,
        };
        let split = match self.split(asked, &scope) {
            Ok(split) => split,
            Err(reason) => return self.unjudged(joined, reason),
        };
        self.count_join(joined);
        let name = batch
            .payload
            .get(span.name.start as usize..span.name.end as usize);
        let service = &resource.resource.service;
        let key = key.operation(name.unwrap_or_default());
        let blamed = self.blame(asked, &scope, &split, baselines, key);
        let found = self.behind(asked, (scope, split, blamed), baselines, key);
        let (scope, split, Some(blamed)) = found else {
            let (scope, split, _) = found;
            baselines.learn(key, &split);
            return Judgement {
                joined: joined.clone(),
                thread: scope.thread(),
                split: Some(split),
                verdict: None,
                intervals: Vec::new(),
            };
        };
        if Nature::at(blamed.0, || asked.circumstances(&scope, blamed.0)).may_become_usual() {
            baselines.learn_slow(key, &split);
        }
        let mut evidence = evidence::find(blamed.0, asked, &scope);
        evidence.usual_ns = baselines.cause(key, blamed.0).map(|usual| usual.median_ns);
        let victim = (&**service, &identity.workload);
        let story = Story::of(blamed.0, blamed.1, &evidence, victim);
        let (start, end) = (span.start_unix_ns, span.end_unix_ns);
        let incident = self.incidents.note(story, start, end);
        let verdict: Verdict = judge::verdict(blamed, &split, identity, &evidence, incident);
        let at = |cause| asked.circumstances(&scope, cause);
        Judgement {
            joined: joined.clone(),
            thread: scope.thread(),
            intervals: self.intervals(span, blamed.0, &split, &at),
            split: Some(split),
            verdict: Some(Arc::new(verdict)),
        }
    }

    /// The cause to name, if any.
    fn blame(
        &self,
        asked: Asked<'_>,
        scope: &Scope,
        split: &Split,
        baselines: &Baselines,
        key: OperationKey,
    ) -> Option<Blamed> {
        if scope.confidence == Confidence::Host {
            return None;
        }
        let at = |cause| asked.circumstances(scope, cause);
        judge::blame(&case_of(scope, split, &at, baselines, key), self.rules)
    }

    /// Where the program is to be blamed for a wait, or nothing is though it waited: what held back
    /// those that it waited for, if that is why.
    fn behind(
        &mut self,
        asked: Asked<'_>,
        own: (Scope, Split, Option<Blamed>),
        baselines: &Baselines,
        key: OperationKey,
    ) -> (Scope, Split, Option<Blamed>) {
        let (scope, split, blamed) = &own;
        let blamed = blamed.map(|(cause, _)| cause);
        let at = |cause| asked.circumstances(scope, cause);
        let case = case_of(scope, split, &at, baselines, key);
        if !behind::may_matter(blamed, &case, self.rules) {
            return own;
        }
        let timeline = asked.context.timeline;
        let widened = scope.with_those_waited_for(timeline, asked.identity, asked.place);
        let Some(widened) = widened else { return own };
        if let Ok(now) = self.split(asked, &widened)
            && let Some(found) = self.blame(asked, &widened, &now, baselines, key)
            && behind::explains(found.0, &now, blamed, split)
        {
            return (widened, now, Some(found));
        }
        // The sweep is left as of the span's own thread.
        match self.split(asked, scope) {
            Ok(split) => (own.0, split, own.2),
            Err(_) => own,
        }
    }

    fn split(&mut self, asked: Asked<'_>, scope: &Scope) -> Result<Split, Unjudged> {
        let Asked {
            span,
            place,
            identity,
            context,
            ..
        } = asked;
        self.sweep.begin(place.duration_ns);
        let mut visited = 0;
        let from = i128::from(span.start_unix_ns);
        for (start, end) in asked.children().take(MAX_PER_SPAN) {
            visited += 1;
            self.sweep
                .child(i128::from(start) - from, i128::from(end) - from);
        }
        let from = i128::from(place.start.0);
        let (sweep, held) = (&mut self.sweep, &mut self.held);
        let (retries, resends) = (&mut self.retries, &mut self.resends);
        let kills = &mut self.kills;
        sweep.shared_by(scope.sharers);
        for (start, end) in &scope.others {
            sweep.other_request(i128::from(*start) - from, i128::from(*end) - from);
        }
        let processes = scope.delays(
            context.timeline,
            identity,
            place,
            &mut |entry: &Entry, particulars| {
                visited += 1;
                if visited < MAX_PER_SPAN {
                    let times = (entry.start, entry.end);
                    retries.note(entry.cause, entry.tid, times, particulars);
                    resends.note(entry.cause, entry.tid, times);
                    kills.note(entry.cause, times, particulars);
                    if held.takes(scope, entry, || entry.cause) {
                        return;
                    }
                    for (start, end) in scope.pieces(entry) {
                        let (start, end) = (i128::from(start), i128::from(end));
                        sweep.delay(entry.cause, entry.cpu, start - from, end - from);
                    }
                }
            },
        );
        // Always asked, so that nothing is left for the next span.
        let retried = self.retries.stretches();
        for (tid, times) in self.resends.waits() {
            self.held.resent(tid, times, Cause::Conntrack);
        }
        let held = self
            .held
            .stretches(scope, context.timeline, identity, place);
        let retried = retried.into_iter().filter(|_| scope.is_apart());
        let killed = self.kills.stretches();
        for stretch in retried.chain(held).chain(killed) {
            let (start, end) = (i128::from(stretch.start), i128::from(stretch.end));
            self.sweep.delay(stretch.cause, 0, start - from, end - from);
        }
        self.budget = self.budget.saturating_sub(visited + processes);
        if visited >= MAX_PER_SPAN {
            return Err(Unjudged::WorkLimit);
        }
        let at = place.start.0;
        Ok(self.sweep.run(|cpu, start, end| {
            context
                .timeline
                .stolen_ns(cpu, at.saturating_add(start), at.saturating_add(end))
        }))
    }

    fn intervals(
        &self,
        span: &SpanView,
        blamed: Cause,
        split: &Split,
        at: &dyn Fn(Cause) -> Circumstances,
    ) -> Vec<CauseInterval> {
        let chosen = intervals::select(self.sweep.pieces(), blamed, split.self_time_ns);
        let mut faults: HashMap<Cause, Option<Fault>> = HashMap::new();
        // From the span's own start: inside the span to the nanosecond, whatever the
        // offset of the clocks has slewed since.
        let wall = |ns| UnixNs(span.start_unix_ns.saturating_add(ns));
        let intervals = chosen.into_iter().filter_map(|piece| {
            Some(CauseInterval {
                cause: piece.cause,
                fault: (*faults
                    .entry(piece.cause)
                    .or_insert_with(|| fault_of(piece.cause, &at(piece.cause))))?,
                start: wall(piece.start),
                end: wall(piece.end),
                cause_ns: piece.cause_ns,
            })
        });
        intervals.collect()
    }

    fn unjudged(&mut self, joined: &Joined, reason: Unjudged) -> Judgement {
        self.count_join(joined);
        if let Some(at) = Unjudged::ALL.iter().position(|r| *r == reason) {
            self.counts.unjudged[at] += 1;
        }
        Judgement {
            joined: joined.clone(),
            thread: None,
            split: None,
            verdict: None,
            intervals: Vec::new(),
        }
    }

    fn count_join(&mut self, joined: &Joined) {
        self.counts.joined += u64::from(joined.identity.is_some());
        if let Some(at) = Confidence::ALL.iter().position(|c| *c == joined.confidence) {
            self.counts.joins[at] += 1;
        }
    }
}

fn case_of<'a>(
    scope: &Scope,
    split: &'a Split,
    at: &'a dyn Fn(Cause) -> Circumstances,
    baselines: &'a Baselines,
    key: OperationKey,
) -> Case<'a> {
    Case {
        split,
        at,
        owner: scope.owner(),
        baselines,
        key,
    }
}
