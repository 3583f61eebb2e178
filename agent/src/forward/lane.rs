//! One signal's way out: a task that owns the queue of that signal and decides, answer by
//! answer, what becomes of each request. [`super`] has the rules.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until, timeout},
};

use super::{
    Outgoing,
    account::Account,
    answer::{self, Answer},
    batch::Batch,
    client::Client,
    pace::Pace,
    trace,
};

/// Refusals, with deliveries of others in between, after which an error that downstream
/// does not explain is taken to be about the request. About two minutes.
const MAX_SUSPICIONS: u32 = 16;
/// Joined requests do not get shorter than this by answers of the kind "too large".
const MIN_BATCH_BYTES: usize = 64 * 1024;

/// The instant at which a stopping forwarder gives up; `None` while it is not stopping.
pub(super) type Stop = watch::Receiver<Option<Instant>>;

pub(super) struct Lane {
    client: Arc<Client>,
    timeout: Duration,
    account: Account,
    max_batch_bytes: usize,
    max_in_flight: usize,

    incoming: mpsc::UnboundedReceiver<Outgoing>,
    /// Never sent yet.
    fresh: VecDeque<Outgoing>,
    /// To be sent again, before fresh ones, in order of arrival.
    again: VecDeque<Batch>,
    /// Single requests that may themselves be what downstream fails at, each with the time
    /// of its next try: others must not wait behind them.
    aside: Vec<(Instant, Batch)>,
    /// The last attempt was not one of those set aside.
    aside_next: bool,
    in_flight: FuturesUnordered<BoxFuture<'static, (Batch, u64, Answer)>>,

    pace: Pace,
    sequence: u64,
    deliveries: u64,
}

impl Lane {
    pub fn new(
        client: Client,
        timeout: Duration,
        account: Account,
        limits: (usize, usize),
        incoming: mpsc::UnboundedReceiver<Outgoing>,
    ) -> Self {
        Self {
            client: Arc::new(client),
            timeout,
            account,
            max_batch_bytes: limits.0,
            max_in_flight: limits.1.max(1),
            incoming,
            fresh: VecDeque::new(),
            again: VecDeque::new(),
            aside: Vec::new(),
            aside_next: false,
            in_flight: FuturesUnordered::new(),
            pace: Pace::default(),
            sequence: 0,
            deliveries: 0,
        }
    }

    /// Runs until stopped, and then until all is delivered or the deadline has come.
    /// What is left then stays in the account.
    pub async fn run(mut self, mut stop: Stop) {
        let mut open = true;
        let mut deadline = None;
        loop {
            let wake = self.fill(Instant::now());
            if !open && self.is_empty() {
                break;
            }
            tokio::select! {
                request = self.incoming.recv(), if open => match request {
                    Some(request) => {
                        self.fresh.push_back(request);
                        while let Ok(request) = self.incoming.try_recv() {
                            self.fresh.push_back(request);
                        }
                    }
                    None => open = false,
                },
                Some((batch, epoch, answer)) = self.in_flight.next() => {
                    self.settle(batch, epoch, answer, Instant::now());
                }
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
                changed = stop.changed(), if deadline.is_none() => {
                    // A forwarder dropped without drain has no time left.
                    let until = stop.borrow().filter(|_| changed.is_ok());
                    let now = Instant::now();
                    deadline = Some(until.unwrap_or(now));
                    self.incoming.close();
                    self.pace.stop();
                    self.aside.iter_mut().for_each(|(due, _)| *due = now);
                }
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    break;
                }
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.fresh.is_empty()
            && self.again.is_empty()
            && self.aside.is_empty()
            && self.in_flight.is_empty()
    }

    /// Starts what may be started; says when to look again if nothing happens before.
    fn fill(&mut self, now: Instant) -> Option<Instant> {
        let limit = if self.pace.failing() {
            1
        } else {
            self.max_in_flight
        };
        let not_before = self.pace.not_before().filter(|at| *at > now);
        while not_before.is_none() && self.in_flight.len() < limit {
            let Some(batch) = self.next(now) else { break };
            self.start(batch);
        }
        if self.in_flight.len() >= limit {
            return None;
        }
        if !self.fresh.is_empty() || !self.again.is_empty() {
            return not_before;
        }
        let due = self.aside.iter().map(|(due, _)| *due).min()?;
        Some(not_before.map_or(due, |at| at.max(due)))
    }

    fn next(&mut self, now: Instant) -> Option<Batch> {
        let others = !self.again.is_empty() || !self.fresh.is_empty();
        if self.aside_next || !others {
            self.aside_next = false;
            let due = self.aside.iter().position(|(due, _)| *due <= now);
            if let Some(position) = due {
                return Some(self.aside.remove(position).1);
            }
        }
        self.aside_next = true;
        self.again.pop_front().or_else(|| {
            self.sequence += 1;
            Batch::take(&mut self.fresh, self.max_batch_bytes, self.sequence)
        })
    }

    fn start(&mut self, batch: Batch) {
        let client = Arc::clone(&self.client);
        let epoch = self.pace.epoch();
        let limit = self.timeout;
        let signal = self.account.signal();
        self.in_flight.push(Box::pin(async move {
            let span = trace::Attempt::start(signal, &batch);
            let answer = match timeout(limit, client.send(batch.payloads())).await {
                Ok(answer) => answer,
                Err(_) => answer::timed_out(limit),
            };
            span.end(&answer);
            (batch, epoch, answer)
        }));
    }

    fn settle(&mut self, batch: Batch, epoch: u64, answer: Answer, now: Instant) {
        match answer {
            Answer::Delivered { rejected, message } => {
                self.deliveries += 1;
                self.pace.succeeded(epoch, now);
                self.account.delivered(&batch, rejected, &message);
            }
            Answer::Retry {
                reason,
                after,
                message,
            } => {
                self.account.retry(reason, &message, false);
                self.pace.failed(epoch, now, false);
                if let Some(after) = after {
                    self.pace.throttled(now, after);
                }
                self.again(batch);
            }
            Answer::Held {
                reason,
                unknown_signal,
                message,
            } => {
                self.account.retry(reason, &message, unknown_signal);
                self.pace.failed(epoch, now, true);
                self.again(batch);
            }
            Answer::Suspect { reason, message } => {
                self.suspect(batch, epoch, reason, &message, now);
            }
            Answer::Rejected { message } => match batch.part() {
                Ok(halves) => self.again_in_halves(halves, "parted", &message),
                Err(single) => self.account.lost(&single, "rejected", &message),
            },
            Answer::TooLarge { message } => {
                self.max_batch_bytes = (batch.bytes() / 2)
                    .max(MIN_BATCH_BYTES)
                    .min(self.max_batch_bytes);
                // One request may become two here: the books are opened anew.
                self.account.close(&batch);
                match batch.cut() {
                    Ok(halves) => {
                        self.account.open(&halves.0);
                        self.account.open(&halves.1);
                        self.again_in_halves(halves, "too_large", &message);
                    }
                    Err(single) => {
                        self.account.open(&single);
                        self.account.lost(&single, "too_large", &message);
                    }
                }
            }
        }
    }

    fn suspect(
        &mut self,
        batch: Batch,
        epoch: u64,
        reason: &'static str,
        message: &str,
        now: Instant,
    ) {
        let mut single = match batch.part() {
            Ok(halves) => {
                self.pace.failed(epoch, now, false);
                self.account.retry(reason, message, false);
                self.again(halves.1);
                self.again(halves.0);
                return;
            }
            Err(single) => single,
        };
        let others_pass = single.refusals > 0 && self.deliveries > single.deliveries_seen;
        if others_pass {
            single.suspicions += 1;
            if single.suspicions >= MAX_SUSPICIONS {
                self.account.lost(&single, "rejected", message);
                return;
            }
            self.account.retry_one(reason);
        } else {
            self.pace.failed(epoch, now, false);
            self.account.retry(reason, message, false);
        }
        single.deliveries_seen = self.deliveries;
        let delay = self.pace.delay(single.refusals, false);
        single.refusals += 1;
        self.aside.push((now + delay, single));
    }

    /// Puts a request back at its place in the order of arrival.
    fn again(&mut self, batch: Batch) {
        let at = self.again.partition_point(|b| b.seq < batch.seq);
        self.again.insert(at, batch);
    }

    fn again_in_halves(&mut self, halves: (Batch, Batch), reason: &'static str, message: &str) {
        tracing::debug!(
            reason,
            message,
            "Downstream refused a request: trying its halves"
        );
        self.account.retry_one(reason);
        self.again(halves.1);
        self.again(halves.0);
    }
}

#[cfg(test)]
mod tests;
