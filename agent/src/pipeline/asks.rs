//! For which request a process waited for whom it asked: the waits of each process, by time.
//!
//! Bounds: 32 bytes a wait, at most [`MAX_ASKS`] of all processes together (2 MB, a quarter more
//! while rings grow); the process with the most gives way first, and that is counted.

use super::{by_process::ByProcess, requests::Request, ring::Interval, timeline::Dropped};
use crate::{event::Ask, process::ProcessKey, time::MonoNs};

/// Waits kept of all processes.
const MAX_ASKS: usize = 1 << 16;
/// Waits looked at for one span.
const MAX_LOOKED_AT: usize = 4_096;
/// Longest time between the reading of a request and the start of its span.
const GAP_NS: u64 = 5_000_000;
/// By so much the sender's clock may be ahead.
const CLOCK_NS: u64 = 100_000;

/// One wait.
#[derive(Clone, Copy, Debug)]
struct Asked {
    start: u64,
    end: u64,
    /// When the request was begun to be read.
    request: u64,
    tid: u32,
}

impl Interval for Asked {
    fn start(&self) -> u64 {
        self.start
    }

    fn end(&self) -> u64 {
        self.end
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Asks(ByProcess<Asked, MAX_ASKS>);

impl Asks {
    /// Takes one.
    ///
    /// # Errors
    /// [`Dropped`] if its times cannot be; nothing has changed then.
    pub fn add(&mut self, ask: &Ask, horizon: MonoNs, now: MonoNs) -> Result<(), Dropped> {
        if ask.end <= ask.start || ask.start < ask.request {
            return Err(Dropped::Empty);
        }
        Dropped::check_end(ask.end, horizon, now)?;
        let asked = Asked {
            start: ask.start.0,
            end: ask.end.0,
            request: ask.request.0,
            tid: ask.tid,
        };
        self.0.add(ask.process, asked);
        Ok(())
    }

    /// When the thread waited in `[start, end)` for what it asked for the request `own`, in order
    /// and without overlaps; nothing where one of the requests beside it may have been meant.
    pub fn of<'a>(
        &self,
        (process, tid): (ProcessKey, u32),
        own: &Request,
        (start, end): (u64, u64),
        beside: impl Iterator<Item = &'a Request> + Clone,
    ) -> Vec<(u64, u64)> {
        let mut times: Vec<(u64, u64)> = self
            .0
            .overlapping(process, start, end)
            .take(MAX_LOOKED_AT)
            .filter(|asked| asked.tid == tid && is_of(asked.request, own, beside.clone()))
            .map(|asked| (asked.start, asked.end))
            .collect();
        times.sort_unstable();
        times.dedup_by(|next, one| {
            let touches = next.0 <= one.1;
            if touches {
                one.1 = one.1.max(next.1);
            }
            touches
        });
        times
    }

    /// Forgets what is older than `horizon`.
    pub fn expire(&mut self, horizon: u64) {
        self.0.expire(horizon);
    }

    /// Waits forgotten before their time since the last call.
    pub fn take_evicted(&mut self) -> u64 {
        self.0.take_evicted()
    }
}

/// Whether the request that was begun to be read then is this one: the loop reads one after the
/// other and begins its span at once, so it is the first that began after. A coarse clock shows the
/// tick before.
fn is_of<'a>(read: u64, own: &Request, mut beside: impl Iterator<Item = &'a Request>) -> bool {
    let latest = |request: &Request| request.start.saturating_add(request.slack_ns.into());
    let earliest = |request: &Request| request.start.saturating_sub(CLOCK_NS);
    latest(own) >= read
        && earliest(own) <= read.saturating_add(GAP_NS)
        && beside.all(|other| latest(other) < read || earliest(other) > latest(own))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::requests::Worker;

    const US: u64 = 1_000;
    const PROCESS: ProcessKey = ProcessKey {
        pid: 7,
        start_ticks: 1,
    };

    fn request(span: u8, start_us: u64, slack_us: u64) -> Request {
        Request {
            start: start_us * US,
            end: start_us * US + 1_000_000 * US,
            trace: [span; 16],
            span: [span; 8],
            slack_ns: (slack_us * US) as u32,
            thread: Worker::Unknown,
        }
    }

    #[test]
    fn an_ask_is_of_the_request_that_began_right_after_it_was_read() {
        // Read at 100 ms; its own start and slack, another's, and whether it is known.
        for (own, other, known) in [
            ((100_050, 100), (300_000, 100), true),
            ((100_050, 100), (50_000, 100), true),
            // One that began before it was read, and one that began after this one did.
            ((100_050, 100), (99_700, 100), true),
            ((100_050, 100), (100_400, 100), true),
            // Either may be.
            ((100_050, 100), (99_950, 100), false),
            ((100_050, 100), (100_150, 100), false),
            // By clocks that count milliseconds.
            ((100_000, 1_100), (102_000, 1_100), true),
            ((100_000, 1_100), (98_000, 1_100), true),
            ((100_000, 1_100), (101_000, 1_100), false),
            ((100_000, 1_100), (99_000, 1_100), false),
            // Not read for it: it was under way, or came much later.
            ((99_000, 100), (300_000, 100), false),
            ((106_000, 100), (300_000, 100), false),
        ] {
            let mut asks = Asks::default();
            let ask = Ask {
                process: PROCESS,
                tid: 7,
                request: MonoNs(100_000 * US),
                start: MonoNs(110_000 * US),
                end: MonoNs(200_000 * US),
            };
            asks.add(&ask, MonoNs(0), ask.end).unwrap();
            let (own, other) = (request(1, own.0, own.1), request(2, other.0, other.1));
            let of = |tid| {
                asks.of(
                    (PROCESS, tid),
                    &own,
                    (own.start, own.end),
                    [&other].into_iter(),
                )
            };
            let expected = if known {
                vec![(110_000 * US, 200_000 * US)]
            } else {
                Vec::new()
            };
            assert_eq!(of(7), expected, "{own:?} {other:?}");
            assert_eq!(of(8), [], "another thread read the answer");
        }
    }

    #[test]
    fn waits_that_touch_are_one() {
        let mut asks = Asks::default();
        for (start, end) in [(10, 20), (15, 30), (30, 31), (40, 50)] {
            let ask = Ask {
                process: PROCESS,
                tid: 7,
                request: MonoNs(US),
                start: MonoNs(start * US),
                end: MonoNs(end * US),
            };
            asks.add(&ask, MonoNs(0), ask.end).unwrap();
        }
        let own = request(1, 2, 100);
        let times = asks.of((PROCESS, 7), &own, (0, 100 * US), [].into_iter());
        assert_eq!(times, [(10 * US, 31 * US), (40 * US, 50 * US)]);
    }

    #[test]
    fn impossible_times_are_refused() {
        let mut asks = Asks::default();
        for (request, start, end) in [(5, 4, 9), (1, 5, 5), (1, 9, 5)] {
            let ask = Ask {
                process: PROCESS,
                tid: 7,
                request: MonoNs(request),
                start: MonoNs(start),
                end: MonoNs(end),
            };
            let refused = asks.add(&ask, MonoNs(0), MonoNs(10));
            assert_eq!(refused, Err(Dropped::Empty));
        }
        assert_eq!(asks.0.len(), 0);
    }
}
