//! Decisions of a lane, answer by answer, with time as a value and without a network.

use bytes::Bytes;

use super::*;
use crate::{
    forward::{ForwardConfig, state::Status},
    metrics::{AgentMetrics, Reason},
    otlp::Signal,
};

struct Bench {
    lane: Lane,
    metrics: AgentMetrics,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        let url = Some("http://127.0.0.1:1");
        let config = ForwardConfig::from_env_and_flags(url, None, |_| None)
            .unwrap()
            .unwrap();
        let target = config.traces.unwrap();
        let metrics = AgentMetrics::default();
        let status = Arc::new(Status::new(Signal::Traces, &target));
        let (_, incoming) = mpsc::unbounded_channel();
        let lane = Lane::new(
            Client::new(&target, Signal::Traces),
            target.timeout,
            Account::new(Signal::Traces, status, metrics.clone()),
            // A batch holds two of the requests below.
            (2, 1),
            incoming,
        );
        let now = Instant::now();
        Self { lane, metrics, now }
    }

    fn arrives(&mut self, name: u8) {
        let request = Outgoing {
            signal: Signal::Traces,
            payload: Bytes::copy_from_slice(&[name]),
            items: 1,
            permit: None,
        };
        let batch = Batch::take(&mut VecDeque::from([request]), 1, 0).unwrap();
        self.lane.account.open(&batch);
        self.lane.fresh.extend(batch.parts);
    }

    /// The names in the request that is sent next, waiting as long as the lane would.
    fn sends(&mut self) -> Option<Batch> {
        let pause = self.lane.pace.not_before();
        self.now = pause.map_or(self.now, |at| at.max(self.now));
        if let Some(batch) = self.lane.next(self.now) {
            return Some(batch);
        }
        self.now = self.lane.aside.iter().map(|(due, _)| *due).min()?;
        self.lane.next(self.now)
    }

    fn answer(&mut self, batch: Batch, answer: Answer) {
        let epoch = self.lane.pace.epoch();
        self.lane.settle(batch, epoch, answer, self.now);
    }

    fn lost(&self, reason: &'static str) -> u64 {
        let lost = &self.metrics.spans_lost;
        lost.get_or_create(&Reason { reason }).get()
    }
}

fn names(batch: &Batch) -> Vec<u8> {
    batch.payloads().concat()
}

fn fine() -> Answer {
    Answer::Delivered {
        rejected: 0,
        message: String::new(),
    }
}

fn suspect() -> Answer {
    Answer::Suspect {
        reason: "error",
        message: "500".to_owned(),
    }
}

fn retry() -> Answer {
    Answer::Retry {
        reason: "connection",
        after: None,
        message: "refused".to_owned(),
    }
}

#[tokio::test]
async fn nothing_is_given_up_while_downstream_fails_at_everything() {
    let mut bench = Bench::new();
    bench.arrives(b'a');
    bench.arrives(b'b');
    for _ in 0..10 * MAX_SUSPICIONS {
        let batch = bench.sends().unwrap();
        bench.answer(batch, suspect());
    }
    assert_eq!(bench.metrics.forward_queue.get(), 2);
    for _ in 0..2 {
        let batch = bench.sends().unwrap();
        bench.answer(batch, fine());
    }
    assert_eq!(bench.metrics.spans_forwarded.get(), 2);
    assert_eq!(bench.lost("rejected"), 0);
}

#[tokio::test]
async fn what_alone_is_refused_while_others_pass_is_given_up_at_last() {
    let mut bench = Bench::new();
    bench.arrives(b'P');
    let mut tries = 0;
    for second in 0..1000 {
        bench.arrives(b'x');
        let batch = bench.sends().unwrap();
        let poison = names(&batch).contains(&b'P');
        tries += u32::from(poison);
        if bench.lost("rejected") > 0 {
            assert!(!poison, "tried again after it was given up");
        }
        bench.answer(batch, if poison { suspect() } else { fine() });
        bench.now += Duration::from_secs(1);
        assert!(bench.lost("rejected") == 0 || second > 16);
    }
    assert_eq!(bench.lost("rejected"), 1);
    while let Some(batch) = bench.sends() {
        bench.answer(batch, fine());
    }
    assert_eq!(bench.metrics.spans_forwarded.get(), 1000);
    assert_eq!(bench.metrics.forward_queue.get(), 0);
    // Joined with another, alone once or (if its turn came before another's) twice before
    // any other passed, and then on suspicion.
    assert!(
        (MAX_SUSPICIONS + 2..=MAX_SUSPICIONS + 3).contains(&tries),
        "{tries}"
    );
}

#[tokio::test]
async fn order_of_arrival_survives_failures() {
    let mut bench = Bench::new();
    for name in b'a'..=b'f' {
        bench.arrives(name);
    }
    // Three under way; they fail in another order.
    let first = bench.lane.next(bench.now).unwrap();
    let second = bench.lane.next(bench.now).unwrap();
    let third = bench.lane.next(bench.now).unwrap();
    bench.answer(second, retry());
    bench.answer(third, retry());
    bench.answer(first, retry());
    bench.arrives(b'g');
    let mut sent = Vec::new();
    while let Some(batch) = bench.sends() {
        sent.extend(names(&batch));
        bench.answer(batch, fine());
    }
    assert_eq!(sent, b"abcdefg");
    assert_eq!(bench.metrics.spans_forwarded.get(), 7);
}

#[tokio::test]
async fn halves_keep_their_place() {
    let mut bench = Bench::new();
    bench.lane.max_batch_bytes = 8;
    for name in b'a'..=b'h' {
        bench.arrives(name);
    }
    bench.arrives(b'z');
    let whole = bench.sends().unwrap();
    assert_eq!(names(&whole), b"abcdefgh");
    let message = "bad".to_owned();
    bench.answer(whole, Answer::Rejected { message });
    let mut sent = Vec::new();
    while let Some(batch) = bench.sends() {
        let bad = names(&batch).contains(&b'c');
        if !bad {
            sent.extend(names(&batch));
        }
        let message = "bad".to_owned();
        bench.answer(
            batch,
            if bad {
                Answer::Rejected { message }
            } else {
                fine()
            },
        );
    }
    assert_eq!(sent, b"abdefghz");
    assert_eq!(bench.lost("rejected"), 1);
    assert_eq!(bench.metrics.forward_queue.get(), 0);
}
