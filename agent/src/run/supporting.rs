//! Log lines as supporting evidence: they are added to a verdict that stands without them,
//! and never make one.

use std::sync::Arc;

use crate::{logs::Board, span::SpanView, verdict::Judgement};

/// Most rules named in one verdict.
const MAX_RULES: usize = 4;

/// Adds to each verdict how many lines of the same workload and time say the same.
pub fn add_lines(board: &Board, spans: &[SpanView], judged: &mut [Judgement]) {
    for (span, judgement) in spans.iter().zip(judged) {
        let (Some(verdict), Some(identity)) = (&mut judgement.verdict, &judgement.joined.identity)
        else {
            continue;
        };
        let lines = board.supporting(
            verdict.cause,
            &identity.workload,
            span.start_unix_ns,
            span.end_unix_ns,
        );
        if lines.is_empty() {
            continue;
        }
        let evidence = &mut Arc::make_mut(verdict).evidence;
        for (rule, lines) in lines.into_iter().take(MAX_RULES) {
            evidence.push((format!("log_{rule}_lines"), lines as f64));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        classify::{Classifier, Only},
        metrics::AgentMetrics,
        process::{Identity, ProcessKey},
        span::Joined,
        stack::Stack,
        time::UnixNs,
        verdict::Verdict,
        vocabulary::{Cause, Confidence, Fault},
        workload::Workload,
    };

    const SECOND: u64 = 1_000_000_000;

    fn judged(cause: Option<Cause>) -> Judgement {
        let workload = Workload {
            cgroup_id: 7,
            ..Workload::default()
        };
        let identity = Identity {
            process: ProcessKey {
                pid: 1,
                start_ticks: 1,
            },
            comm: String::new(),
            cgroup_id: 7,
            cgroup_path: String::new(),
            workload,
            stack: Stack::default(),
        };
        let verdict = cause.map(|cause| {
            Arc::new(Verdict {
                fault: Fault::L3,
                cause,
                share: 0.5,
                culprit: String::new(),
                incident: String::new(),
                summary: String::new(),
                remedy: String::new(),
                evidence: vec![("x_ms".to_owned(), 1.0)],
            })
        });
        Judgement {
            thread: None,
            joined: Joined {
                identity: Some(Arc::new(identity)),
                confidence: Confidence::Process,
            },
            split: None,
            verdict,
            intervals: Vec::new(),
        }
    }

    #[test]
    fn lines_are_added_to_a_verdict_and_never_make_one() {
        let board = Board::new("n1", AgentMetrics::default());
        let line = b"OOMKilled";
        let hit = Classifier::get().classify(line, Only::default()).unwrap();
        let workload = Workload {
            cgroup_id: 7,
            ..Workload::default()
        };
        for _ in 0..3 {
            board.take(hit, &workload, "kmsg", line, UnixNs(100 * SECOND));
        }
        let span = SpanView {
            start_unix_ns: 100 * SECOND,
            end_unix_ns: 101 * SECOND,
            ..SpanView::default()
        };
        let spans = [span.clone(), span.clone(), span];
        let mut all = [
            judged(Some(Cause::OomKill)),
            judged(Some(Cause::CpuThrottle)),
            judged(None),
        ];
        add_lines(&board, &spans, &mut all);
        let evidence = |j: &Judgement| j.verdict.as_ref().map(|v| v.evidence.clone());
        let own = ("x_ms".to_owned(), 1.0);
        let lines = ("log_oom_killed_lines".to_owned(), 3.0);
        assert_eq!(evidence(&all[0]), Some(vec![own.clone(), lines]));
        assert_eq!(evidence(&all[1]), Some(vec![own]));
        assert_eq!(evidence(&all[2]), None);
    }
}
