//! What the agent said against what was done.

use std::{cmp::Reverse, collections::BTreeMap};

use serde::{Deserialize, Serialize};

use crate::{
    expect::{self, Expected},
    fault::Effect,
    load::Request,
    plan::{Fault, Spec},
    sampler::Sampler,
    service::Service,
    sink::Span,
};

/// When a fault was in place.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Wall time.
    pub start_ns: u64,
    /// Wall time.
    pub end_ns: u64,
}

/// Part of a request that lies in the window for the request to count as affected.
const AFFECTED: f64 = 0.7;
/// A span that ended so long before the injection is healthy.
const MARGIN_NS: u64 = 50_000_000;

/// One answer of the agent, summed over the spans that got it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Answer {
    /// Whose spans.
    pub service: String,
    /// Fault.
    pub fault: String,
    /// Cause.
    pub cause: String,
    /// The culprit with the most of it.
    pub culprit: String,
    /// Milliseconds blamed.
    pub blamed_ms: f64,
    /// Spans.
    pub spans: usize,
    /// One of the sentences.
    pub summary: String,
}

/// How one fault was answered.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Verdict {
    /// What was done.
    #[serde(flatten)]
    pub fault: Fault,
    /// What the independent measure says of it.
    pub effect: Effect,
    /// What was to be said, as `fault cause`.
    pub expected: String,
    /// What was said, most blamed first.
    pub answered: Option<Answer>,
    /// The hop is right.
    pub hop: bool,
    /// The layer is right.
    pub fault_right: bool,
    /// The mechanism is right.
    pub cause_right: bool,
    /// The culprit is right.
    pub culprit_right: bool,
    /// The mechanism is right also where a wait for a peer counts by its time like the others.
    #[serde(default)]
    pub right_by_time: bool,
    /// Somebody was blamed who has nothing to do with it.
    pub wrong_blame: bool,
}

/// A verdict on a healthy span.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FalseVerdict {
    /// Whose span.
    pub service: String,
    /// Its name.
    pub span: String,
    /// `fault cause`.
    pub said: String,
    /// Milliseconds blamed.
    pub blamed_ms: f64,
    /// What the kernel's books say of the same time, in milliseconds.
    pub measured_ms: f64,
    /// The sentence.
    pub summary: String,
}

/// What came out of one run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// Its number.
    pub run: usize,
    /// One for each fault; none in a healthy run.
    pub verdicts: Vec<Verdict>,
    /// All answers on affected spans, most blamed first.
    pub answers: Vec<Answer>,
    /// Requests, and those that failed.
    pub requests: (usize, usize),
    /// Spans that came back, without those the agent made.
    pub spans: usize,
    /// Healthy spans: of runs without fault, or from before the injection.
    pub healthy: usize,
    /// Verdicts on them that nothing confirms.
    pub false_verdicts: Vec<FalseVerdict>,
    /// Verdicts on them that the kernel's books confirm: another program was in the way, or
    /// another request of the same.
    pub disturbed: Vec<FalseVerdict>,
    /// Of them those that point to a callee, which is judged by itself.
    #[serde(default)]
    pub pointed: usize,
    /// Verdicts on affected spans that the kernel's books confirm and that are of no injected
    /// fault: they are in no answer.
    pub others: usize,
    /// Spans by the join that was used.
    pub joins: BTreeMap<String, usize>,
    /// Milliseconds from the end of a span with a verdict until it came back.
    pub verdict_after_ms: Vec<f64>,
    /// Why the run could not be done.
    pub error: Option<String>,
}

impl Outcome {
    /// Whether the injection of a fault had no effect.
    #[must_use]
    pub fn is_void(&self) -> bool {
        self.verdicts.iter().any(|verdict| !verdict.effect.there)
    }

    /// Whether everything was right.
    #[must_use]
    pub fn is_right(&self) -> bool {
        self.error.is_none()
            && self.false_verdicts.is_empty()
            && self.verdicts.iter().all(|v| {
                v.hop && v.fault_right && v.cause_right && v.culprit_right && !v.wrong_blame
            })
    }
}

/// Scores a run.
#[must_use]
pub fn score(
    spec: &Spec,
    effects: &[Effect],
    window: Option<Window>,
    requests: &[Request],
    spans: &[Span],
    sampler: &Sampler,
    paravirtual_disk: bool,
) -> Outcome {
    let own: Vec<&Span> = spans.iter().filter(|span| !span.is_synthetic()).collect();
    let mut outcome = Outcome {
        run: spec.run,
        requests: (requests.len(), requests.iter().filter(|r| !r.ok).count()),
        spans: own.len(),
        ..Outcome::default()
    };
    let is_in = |request: &&Request| window.is_some_and(|window| is_affected(request, window));
    let requests: Vec<&Request> = requests.iter().filter(is_in).collect();
    let affected: Vec<&str> = requests.iter().map(|r| r.trace.as_str()).collect();
    let met = |fault: &Fault| {
        let all = fault.victim != Service::Rates;
        requests.iter().filter(|r| all || r.asks_rates).count()
    };
    let effects = effects.iter().cloned().zip(&spec.faults);
    let effects: Vec<Effect> = effects
        .map(|(effect, fault)| effect.felt_by(met(fault)))
        .collect();
    let mut judged = Vec::new();
    for span in own {
        *outcome
            .joins
            .entry(span.text("confidence").to_owned())
            .or_default() += 1;
        let has_verdict = !span.text("cause").is_empty();
        if has_verdict {
            let after = span.arrived_ns.saturating_sub(span.end_ns);
            outcome.verdict_after_ms.push(after as f64 / 1e6);
        }
        let healthy = window.is_none_or(|window| span.end_ns + MARGIN_NS < window.start_ns);
        if healthy {
            outcome.healthy += 1;
            if is_pointer(span.text("cause")) {
                outcome.pointed += 1;
            } else if has_verdict {
                let said = false_verdict(span, sampler);
                if is_confirmed(&said) {
                    outcome.disturbed.push(said);
                } else {
                    outcome.false_verdicts.push(said);
                }
            }
        } else if has_verdict && affected.contains(&span.trace.as_str()) {
            let cause = span.text("cause");
            let is_about = |fault: &Fault| expect::is_about(fault.kind, cause);
            if !spec.faults.iter().any(is_about) && is_confirmed(&false_verdict(span, sampler)) {
                // True, and not of this fault: what else runs on the machine was in the way.
                outcome.others += 1;
            } else {
                judged.push(span);
            }
        }
    }
    outcome.answers = answers(&judged);
    let mut by_time = outcome.answers.clone();
    by_time.sort_by_key(|answer| (is_pointer(&answer.cause), most(answer)));
    let right: Vec<Expected> = spec
        .faults
        .iter()
        .map(|fault| expect::expected(fault, paravirtual_disk))
        .collect();
    outcome.verdicts = spec
        .faults
        .iter()
        .zip(&effects)
        .zip(&right)
        .map(|((fault, effect), expected)| {
            let others: Vec<&Expected> = right
                .iter()
                .filter(|other| !std::ptr::eq(*other, expected))
                .collect();
            verdict(
                fault,
                effect,
                (expected, &others),
                &first(&outcome.answers, &others),
                first(&by_time, &others)
                    .iter()
                    .any(|answer| is_answer(answer, expected)),
                is_wrong(fault, &outcome.answers, &right),
            )
        })
        .collect();
    outcome
}

fn is_affected(request: &Request, window: Window) -> bool {
    let start = request.start_ns.max(window.start_ns);
    let inside = request.end_ns.min(window.end_ns).saturating_sub(start);
    let whole = request.end_ns.saturating_sub(request.start_ns).max(1);
    inside as f64 >= AFFECTED * whole as f64
}

/// The answers on these spans, most blamed time first.
fn answers(spans: &[&Span]) -> Vec<Answer> {
    let mut answers: Vec<(Answer, BTreeMap<&str, f64>)> = Vec::new();
    for span in spans {
        let ms = blamed_ms(span);
        let (fault, cause) = (span.text("fault"), span.text("cause"));
        let same = |(a, _): &(Answer, _)| {
            a.service == span.service && a.fault == fault && a.cause == cause
        };
        let found = match answers.iter().position(same) {
            Some(at) => at,
            None => {
                let answer = Answer {
                    service: span.service.clone(),
                    fault: fault.to_owned(),
                    cause: cause.to_owned(),
                    summary: span.text("summary").to_owned(),
                    ..Answer::default()
                };
                answers.push((answer, BTreeMap::new()));
                answers.len() - 1
            }
        };
        let (answer, culprits) = &mut answers[found];
        answer.blamed_ms += ms;
        answer.spans += 1;
        *culprits.entry(span.text("culprit")).or_default() += ms;
    }
    let mut answers: Vec<Answer> = answers
        .into_iter()
        .map(|(answer, culprits)| {
            let most = culprits.into_iter().max_by(|a, b| a.1.total_cmp(&b.1));
            Answer {
                culprit: most.map_or_else(String::new, |(name, _)| name.to_owned()),
                ..answer
            }
        })
        .collect();
    // Who waited for a callee says so for all of its wait: the answer is what the callee says. Who
    // waited for a peer may have found nothing else to point to.
    answers.sort_by_key(|answer| {
        let points = answer.fault == "downstream";
        (points, is_pointer(&answer.cause), most(answer))
    });
    answers
}

/// Most blamed time first.
fn most(answer: &Answer) -> Reverse<u64> {
    Reverse((answer.blamed_ms * 1e3) as u64)
}

/// Whether a verdict only says that the callee took long.
fn is_pointer(cause: &str) -> bool {
    cause == "downstream"
}

fn blamed_ms(span: &Span) -> f64 {
    let key = format!("evidence.{}_ms", span.text("cause"));
    span.number(&key)
}

/// The answers that count for one fault: as many as there are faults, most blamed first. What is
/// right of another fault takes one place, however many services are told of it (both ends of a
/// connection wait for a lost segment).
fn first<'a>(answers: &'a [Answer], others: &[&Expected]) -> Vec<&'a Answer> {
    let mut seen = vec![false; others.len()];
    let counts = |answer: &&Answer| {
        let of = others.iter().position(|other| is_answer(answer, other));
        of.is_none_or(|other| !std::mem::replace(&mut seen[other], true))
    };
    answers
        .iter()
        .filter(counts)
        .take(others.len() + 1)
        .collect()
}

fn verdict(
    fault: &Fault,
    effect: &Effect,
    (expected, others): (&Expected, &[&Expected]),
    first: &[&Answer],
    right_by_time: bool,
    wrong_blame: bool,
) -> Verdict {
    let right = first.iter().find(|answer| is_answer(answer, expected));
    // What is right of the other fault is no answer to this one.
    let wrong = || {
        first
            .iter()
            .find(|a| !others.iter().any(|o| is_answer(a, o)))
    };
    let answered = right.or_else(wrong).or_else(|| first.first()).copied();
    let has = |test: &dyn Fn(&Answer) -> bool| answered.is_some_and(test);
    let nobody = |culprit: &str| matches!(culprit, "" | "none");
    Verdict {
        fault: fault.clone(),
        effect: effect.clone(),
        expected: format!("{} {}", expected.answers[0].0, expected.answers[0].1),
        answered: answered.cloned(),
        hop: has(&|a| expected.services.iter().any(|s| s.name() == a.service)),
        fault_right: has(&|a| expected.answers.iter().any(|(fault, _)| a.fault == *fault)),
        cause_right: has(&|a| expected.answers.iter().any(|(_, cause)| a.cause == *cause)),
        culprit_right: has(&|a| {
            expected
                .culprits
                .iter()
                .any(|name| *name == a.culprit || nobody(name) && nobody(&a.culprit))
        }),
        right_by_time,
        wrong_blame,
    }
}

fn is_answer(answer: &Answer, expected: &Expected) -> bool {
    expected.services.iter().any(|s| s.name() == answer.service)
        && expected.answers.contains(&said(answer))
}

/// Fault and cause.
fn said(answer: &Answer) -> (&str, &str) {
    (&answer.fault, &answer.cause)
}

/// Whether the application's own fault is mostly blamed on something that was not done.
fn is_wrong(fault: &Fault, answers: &[Answer], right: &[Expected]) -> bool {
    let is_other = |answer: &Answer| {
        !right.iter().any(|expected| is_answer(answer, expected))
            && !matches!(answer.fault.as_str(), "app" | "downstream")
    };
    expect::is_own(fault.kind) && answers.first().is_some_and(is_other)
}

fn false_verdict(span: &Span, sampler: &Sampler) -> FalseVerdict {
    let measured = sampler.between(span.start_ns, span.end_ns);
    let service = Service::ALL.iter().find(|s| s.name() == span.service);
    let measured_ms = match (span.text("cause"), measured, service) {
        ("runqueue", Some(sample), Some(service)) => sample.waited_ms[*service as usize],
        // A lock of its own process (an interpreter's) that another of its requests had,
        // and ran.
        ("lock_wait", Some(sample), Some(service)) => sample.ran_ms[*service as usize],
        // Counted in ticks of 10 ms.
        ("steal", Some(sample), _) if sample.stolen_ms > 0.0 => sample.stolen_ms + 10.0,
        ("block_queue" | "block_device", Some(sample), _) => sample.disk_ms,
        _ => 0.0,
    };
    FalseVerdict {
        service: span.service.clone(),
        span: span.name.clone(),
        said: format!("{} {}", span.text("fault"), span.text("cause")),
        blamed_ms: blamed_ms(span),
        measured_ms,
        summary: span.text("summary").to_owned(),
    }
}

/// The kernel's books show at least nine tenths of what was blamed.
fn is_confirmed(said: &FalseVerdict) -> bool {
    said.measured_ms > 0.0 && said.measured_ms >= 0.9 * said.blamed_ms
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Kind;

    fn answer(service: Service, (fault, cause): (&str, &str)) -> Answer {
        Answer {
            service: service.name().to_owned(),
            fault: fault.to_owned(),
            cause: cause.to_owned(),
            ..Answer::default()
        }
    }

    fn expected(kind: Kind, victim: Service) -> Expected {
        let fault = Fault {
            kind,
            victim,
            strength: 0.5,
            choice: 0,
        };
        expect::expected(&fault, true)
    }

    #[test]
    fn both_ends_of_one_loss_are_one_answer() {
        use Service::{Front, Orders, Store};
        let loss = expected(Kind::Loss, Orders);
        let quota = expected(Kind::OwnQuota, Store);
        let lost = ("L-3", "tcp_retransmit");
        let answers = [
            answer(Front, lost),
            answer(Orders, lost),
            answer(Store, ("L-3", "cpu_throttle")),
            answer(Store, ("host", "runqueue")),
        ];
        let counted = first(&answers, &[&loss]);
        assert_eq!(counted.len(), 2);
        assert!(is_answer(counted[1], &quota));
        // What was not done takes places as ever.
        let wrong = answer(Orders, ("app", "sleep"));
        let answers = [vec![wrong.clone(), wrong], answers.to_vec()].concat();
        let counted = first(&answers, &[&loss]);
        assert!(!counted.iter().any(|answer| is_answer(answer, &quota)));
        // Of one fault the first answer counts, right or wrong.
        assert_eq!(first(&answers[2..], &[]).len(), 1);
    }
}
