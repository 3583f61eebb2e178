//! What was recorded is judged the same again; what nobody recorded is refused with a reason.

use std::{
    fs,
    io::{BufReader, Cursor, Read as _},
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
};

use flate2::bufread::GzDecoder;
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use prost::Message as _;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    entry::{EndReason, Entry},
    keep::keep,
    read::{ReadError, Reader, Step},
    recorder::{Recorder, RecorderConfig, Written},
    replay::{Outcome, replay},
    write::{Room, Writer, partial},
};
use crate::{
    event::{Delay, Event, Limiter, Particulars, Steal},
    metrics::AgentMetrics,
    otlp::view,
    pipeline::{Pipeline, PipelineConfig},
    process::{Identity, ProcessKey},
    span::{Joined, SpanBatch},
    stack::{Stack, StackEntry},
    time::{MonoNs, UnixNs, WallClock},
    vocabulary::{Cause, Confidence, Layer},
    workload::Workload,
};

mod hostile;

const MS: u64 = 1_000_000;
const MONO: u64 = 5_000_000 * MS;
const WALL: u64 = 1_795_334_400_000 * MS;
const SECRET: &str = "4929-1234";

fn at(ms: u64) -> MonoNs {
    MonoNs(MONO + ms * MS)
}

fn delay(pid: u32, cause: Cause, start_ms: u64, end_ms: u64) -> Event {
    Event::Delay(Delay {
        cause,
        start: at(start_ms),
        end: at(end_ms),
        process: ProcessKey {
            pid,
            start_ticks: 99,
        },
        tid: pid + 1,
        cpu: 1,
        cgroup_id: u64::from(pid),
        particulars: match cause {
            Cause::CpuThrottle => Particulars::Limiter(Arc::new(Limiter {
                cgroup_id: u64::from(pid),
                cgroup_path: "/shop/node-seven/cart".into(),
                cores: 0.1 + 0.2,
                quota_file: "cpu.max",
                is_ancestor: false,
            })),
            _ => Particulars::None,
        },
    })
}

fn text(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue {
            value: Some(any_value::Value::StringValue(value.to_owned())),
        }),
        ..KeyValue::default()
    }
}

fn batch(id: u8, start_ms: u64, end_ms: u64) -> SpanBatch {
    let span = Span {
        trace_id: vec![id; 16],
        span_id: vec![id; 8],
        name: "GET /cart".into(),
        kind: 2,
        start_time_unix_nano: WALL + start_ms * MS,
        end_time_unix_nano: WALL + end_ms * MS,
        attributes: vec![text("card.number", SECRET)],
        ..Span::default()
    };
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource {
                attributes: vec![
                    text("service.name", "cart"),
                    text("host.name", "node-seven"),
                ],
                ..Resource::default()
            }),
            scope_spans: vec![ScopeSpans {
                spans: vec![span],
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    };
    let mut batch = view::parse(request.encode_to_vec().into(), at(end_ms + 5)).unwrap();
    batch.resources[0].joined = Joined {
        identity: Some(Arc::new(Identity {
            process: ProcessKey {
                pid: 7,
                start_ticks: 99,
            },
            comm: "cart".into(),
            cgroup_id: 7,
            cgroup_path: "/shop/node-seven/cart".into(),
            workload: Workload {
                container: "cart".into(),
                ..Workload::default()
            },
            stack: Stack(vec![StackEntry {
                layer: Layer::Container,
                technology: "runc".into(),
                evidence: "a test on node-seven".into(),
            }]),
        })),
        confidence: Confidence::Process,
    };
    batch
}

/// A pipeline that judges while it is recorded.
struct Live {
    pipeline: Pipeline,
    recorder: Recorder,
    metrics: AgentMetrics,
}

impl Live {
    fn start(file: &Path, max_bytes: u64) -> Self {
        let config = PipelineConfig::default();
        let clocks = (MonoNs(MONO), UnixNs(WALL));
        let to = RecorderConfig {
            max_bytes,
            node: "node-seven".into(),
            child_spans: true,
        };
        let ended = CancellationToken::new();
        let recorder = Recorder::start(file, to, &config, clocks, ended).unwrap();
        let metrics = AgentMetrics::default();
        let clock = WallClock::new(clocks.0, clocks.1);
        Self {
            pipeline: Pipeline::new(config, clock, metrics.clone()),
            recorder,
            metrics,
        }
    }

    fn events(&mut self, now: MonoNs, events: &[Event]) {
        self.recorder.events(now, events, &self.metrics);
        for event in events {
            self.pipeline.on_event(event, now);
        }
    }

    fn batch(&mut self, batch: SpanBatch) {
        self.recorder.batch(&batch, &self.metrics);
        self.pipeline.on_batch(batch);
    }

    fn settle(&mut self, now: MonoNs) {
        self.recorder.settle(now, &self.metrics);
        let (recorder, metrics) = (&self.recorder, &self.metrics);
        self.pipeline.settle(now, &mut |batch, judged| {
            recorder.judged(&batch, &judged, metrics);
        });
    }

    fn finish(mut self, now: MonoNs) -> Written {
        self.recorder.flush(now, &self.metrics);
        let (recorder, metrics) = (&self.recorder, &self.metrics);
        self.pipeline.flush(now, &mut |batch, judged| {
            recorder.judged(&batch, &judged, metrics);
        });
        self.recorder.finish().unwrap()
    }
}

/// A service of which every fourth request is held back, beside one that sends no spans.
fn record(file: &Path) -> Written {
    let mut live = Live::start(file, 64 << 20);
    for n in 0..40u64 {
        let start = 1_000 * n;
        let mut events = vec![
            delay(7, Cause::OnCpu, start, start + 3),
            delay(8, Cause::Runqueue, start, start + 30),
            Event::Steal(Steal {
                cpu: 1,
                start: at(start),
                end: at(start + 100),
                stolen_ns: n % 3 * MS,
            }),
        ];
        if n % 4 == 3 {
            events.push(delay(7, Cause::CpuThrottle, start + 3, start + 83));
        }
        live.events(at(start + 100), &events);
        let end = if n % 4 == 3 { start + 97 } else { start + 13 };
        live.batch(batch(n as u8 + 1, start, end));
        live.recorder.clock(
            at(start + 500),
            UnixNs(WALL + (start + 500) * MS + n),
            &live.metrics,
        );
        let wall = UnixNs(WALL + (start + 500) * MS + n);
        live.pipeline.sample_clock(at(start + 500), wall);
        if n < 38 {
            live.settle(at(start + 700));
        }
    }
    live.finish(at(60_000))
}

fn recorded() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("run.jsonl.gz");
    let written = record(&file);
    assert_eq!((written.lost, written.reason), (0, EndReason::Stopped));
    assert_eq!(written.bytes, fs::metadata(&file).unwrap().len());
    assert!(!partial(&file).exists());
    (dir, file)
}

fn replayed(file: &Path) -> Outcome {
    replay(&mut Reader::open(file).unwrap(), &mut |_, _| {}).unwrap()
}

fn lines(file: &Path) -> Vec<Value> {
    let mut text = String::new();
    let mut packed = BufReader::new(fs::File::open(file).unwrap());
    GzDecoder::new(&mut packed)
        .read_to_string(&mut text)
        .unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// What comes of lines that somebody wrote.
fn of_lines(lines: &[Value]) -> Result<Outcome, ReadError> {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    of_bytes(text.into_bytes())
}

fn of_bytes(bytes: Vec<u8>) -> Result<Outcome, ReadError> {
    let mut reader = Reader::new(Box::new(Cursor::new(bytes)))?;
    replay(&mut reader, &mut |_, _| {})
}

#[test]
fn what_was_recorded_is_judged_the_same_to_the_last_bit() {
    let (_dir, file) = recorded();
    let outcome = replayed(&file);
    assert!(outcome.complete && outcome.is_same(), "{outcome:?}");
    assert_eq!(
        (outcome.spans, outcome.compared, outcome.verdicts),
        (40, 40, 10)
    );
    // Uncompressed it says the same.
    let outcome = of_lines(&lines(&file)).unwrap();
    assert!(outcome.complete && outcome.is_same());
}

#[test]
fn something_else_than_was_recorded_is_told() {
    let (_dir, file) = recorded();
    let mut lines = lines(&file);
    let throttle = lines.iter_mut().find_map(|line| {
        let events = line.pointer_mut("/events/events")?.as_array_mut()?;
        events
            .iter_mut()
            .find(|e| e["delay"]["cause"] == "cpu_throttle")
    });
    let end = &mut throttle.unwrap()["delay"]["end"];
    *end = json!(end.as_u64().unwrap() - 1);
    let outcome = of_lines(&lines).unwrap();
    assert_eq!(
        (outcome.compared, outcome.differing),
        (40, 1),
        "one nanosecond"
    );
    let difference = &outcome.differences[0];
    assert_ne!(difference.recorded, difference.replayed);
    assert!(!outcome.is_same());
    lines.retain(|line| line.get("judged").is_none());
    let outcome = of_lines(&lines).unwrap();
    assert_eq!((outcome.compared, outcome.differing), (0, 0));
    assert!(
        !outcome.is_same(),
        "nothing to compare with is not the same"
    );
}

#[test]
fn a_kept_recording_says_the_same_with_less() {
    let (dir, file) = recorded();
    let small = dir.path().join("kept.jsonl.gz");
    keep(&file, &small, Some("a test")).unwrap();
    let outcome = replayed(&small);
    assert!(outcome.complete && outcome.is_same());
    assert_eq!((outcome.spans, outcome.verdicts), (40, 10));
    assert_eq!(
        replayed(&file).events - outcome.events,
        40 + 14,
        "the neighbour's, and no steal"
    );
    let text: String = lines(&small).iter().map(Value::to_string).collect();
    assert!(!text.contains("node-seven"), "{text}");
    assert!(text.contains("/shop/host/cart") && text.contains("a test"));
    let payloads = lines(&small).into_iter().filter_map(|line| {
        let payload = line.pointer("/batch/payload")?.as_str()?.to_owned();
        base64::Engine::decode(&base64::engine::general_purpose::STANDARD, payload).ok()
    });
    let mut batches = 0;
    for payload in payloads {
        let holds = |word: &str| payload.windows(word.len()).any(|w| w == word.as_bytes());
        assert!(holds("service.name") && holds("GET /cart"));
        assert!(!holds(SECRET) && !holds("node-seven"));
        batches += 1;
    }
    assert_eq!(batches, 40);
}

#[test]
fn what_a_killed_agent_leaves_is_replayed_as_far_as_it_goes() {
    let (_dir, file) = recorded();
    let bytes = fs::read(&file).unwrap();
    let mut last = 0;
    for part in 1..=20 {
        let cut = bytes[..bytes.len() * part / 20].to_vec();
        match of_bytes(cut) {
            Ok(outcome) => {
                assert_eq!(outcome.complete, part == 20);
                assert_eq!(outcome.differing, 0);
                assert!(outcome.spans >= last);
                last = outcome.spans;
            }
            // Too little to tell what it is.
            Err(error) => assert!(
                part < 5 && matches!(error, ReadError::Foreign(_)),
                "{error}"
            ),
        }
    }
    assert_eq!(last, 40);
    // The end of the last line is missing.
    let mut text: Vec<u8> = lines(&file)
        .iter()
        .flat_map(|l| format!("{l}\n").into_bytes())
        .collect();
    text.truncate(text.len() - 3);
    let outcome = of_bytes(text).unwrap();
    assert_eq!((outcome.complete, outcome.compared), (false, 40));
}

#[test]
fn a_recording_keeps_its_bound_and_says_that_it_ends() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("small.jsonl.gz");
    let max_bytes = 20_000;
    let mut live = Live::start(&file, max_bytes);
    for n in 0..200_000u64 {
        if live.recorder.has_ended() {
            break;
        }
        let start = n * 7 % 1_000_003;
        live.events(
            at(2_000_000),
            &[delay(
                n as u32 * 31,
                Cause::Runqueue,
                start,
                start + 1 + n % 977,
            )],
        );
    }
    let written = live.finish(at(2_000_000));
    assert_eq!(written.reason, EndReason::MaxSize);
    let size = fs::metadata(&file).unwrap().len();
    assert!(size <= max_bytes && size > max_bytes / 4, "{size}");
    let outcome = replayed(&file);
    assert!(outcome.complete && outcome.events > 100, "{outcome:?}");
}

#[test]
fn an_entry_that_was_lost_is_said_in_the_recording() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("lossy.jsonl.gz");
    let live = Live::start(&file, 1 << 30);
    // More at once than the queue holds, whatever the thread does.
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            schema_url: "x".repeat(15 << 20),
            ..ResourceSpans::default()
        }],
    };
    let large = view::parse(request.encode_to_vec().into(), at(10)).unwrap();
    for _ in 0..6 {
        live.recorder.batch(&large, &live.metrics);
    }
    let lost = live.metrics.recording_lost.get();
    assert!(lost > 0);
    let written = live.finish(at(30));
    assert_eq!(written.lost, lost);
    let mut reader = Reader::open(&file).unwrap();
    let (mut batches, mut said) = (0, 0);
    loop {
        match reader.step().unwrap() {
            Step::Batch(_) => batches += 1,
            Step::Lost(entries) => said += entries,
            Step::End => break,
            _ => {}
        }
    }
    assert_eq!((batches + said, said), (6, lost));
}

#[test]
fn who_has_a_slot_may_change() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("slots.jsonl.gz");
    let mut writer = Writer::create(&file, 1 << 30).unwrap();
    let mut first = lines(&recorded().1);
    let header: Entry = serde_json::from_value(first.swap_remove(0)).unwrap();
    assert_eq!(writer.entry(&header).unwrap(), Room::Written);
    for n in 0..10_000u32 {
        let mut batch = batch(1, 0, 10);
        let joined = &mut batch.resources[0].joined;
        let mut identity = Identity::clone(joined.identity.as_ref().unwrap());
        identity.process.pid = n;
        joined.identity = Some(Arc::new(identity));
        let resources = batch.resources.iter().map(|r| &r.joined);
        writer
            .batch(batch.received, resources, &batch.payload)
            .unwrap();
    }
    writer.finish(EndReason::Stopped).unwrap();
    let mut reader = Reader::open(&file).unwrap();
    for n in 0..10_000u32 {
        let Step::Batch(batch) = reader.step().unwrap() else {
            panic!("{n}")
        };
        let identity = batch.resources[0].joined.identity.as_ref().unwrap();
        assert_eq!(identity.process.pid, n);
    }
}

#[test]
fn a_folder_is_no_name_for_a_recording() {
    let dir = tempfile::tempdir().unwrap();
    let error = Writer::create(dir.path(), 1 << 20).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::IsADirectory);
    assert!(!partial(dir.path()).exists());
}
