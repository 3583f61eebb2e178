//! The table of symptoms, row by row: from what the kernel tells in each to the fault, the
//! cause and the remedy. What the lab can make of them is kept as recordings of real runs too
//! (`agent/tests/recordings.rs`).

use super::*;
use crate::{
    event::{Disk, Flow, Slice, SystemCall, VmExit},
    knowledge::data,
    process::ProcessKey,
};

/// A row's story: what the kernel tells while one request is served.
struct Case {
    symptom: &'static str,
    delays: Vec<Delay>,
    /// What the hypervisor took from CPU 0 in all of the span.
    stolen_ms: u64,
    /// The innermost layer of the process.
    layer: Layer,
    span_ms: u64,
    expected: (Fault, Cause),
    /// Part of the remedy.
    remedy: &'static str,
}

impl Case {
    fn new(symptom: &'static str, span_ms: u64, expected: (Fault, Cause)) -> Self {
        Self {
            symptom,
            delays: Vec::new(),
            stolen_ms: 0,
            layer: Layer::Container,
            span_ms,
            expected,
            remedy: "",
        }
    }

    fn told(mut self, delays: impl IntoIterator<Item = Delay>) -> Self {
        self.delays.extend(delays);
        self
    }

    fn remedied_by(self, remedy: &'static str) -> Self {
        Self { remedy, ..self }
    }
}

fn through(slice: Slice, device: &str) -> Particulars {
    Particulars::Flow(Arc::new(Flow {
        slice: Some(slice),
        device: device.into(),
        reason: String::new(),
    }))
}

fn with(particulars: &Particulars, delay: Delay) -> Delay {
    Delay {
        particulars: particulars.clone(),
        ..delay
    }
}

fn cases() -> Vec<Case> {
    use Cause::{
        BlockQueue, Conntrack, CpuThrottle, KvmExit, LockWait, MemoryReclaim, OomKill, Runqueue,
        SeccompDenied, SocketWait, Steal, TcpRetransmit, Virtqueue,
    };
    let virtio = through(Slice::Paravirtual, "eth0");
    let veth = through(Slice::Container, "eth0");
    let disk = Particulars::Disk(Arc::new(Disk {
        name: "sda".into(),
        paravirtual: false,
    }));
    let limit = Particulars::Memory {
        memcg: true,
        limit: None,
        is_swap_in: false,
    };
    let connect = Particulars::SystemCall(Arc::new(SystemCall {
        name: "connect".into(),
        action: "errno".into(),
    }));
    let child = Particulars::SystemCall(Arc::new(SystemCall {
        name: "wait4".into(),
        action: String::new(),
    }));
    let killed = Delay {
        process: ProcessKey {
            pid: 4_321,
            start_ticks: 4_321,
        },
        tid: 4_321,
        ..with(&limit, delay(OomKill, 189, 189))
    };
    let exit = Particulars::VmExit(Arc::new(VmExit {
        reason: "IO_INSTRUCTION".into(),
        nested_page_fault: false,
    }));
    vec![
        Case::new("two-seconds-more", 2_500, (Fault::L3, CpuThrottle))
            .told(throttled_periods(0, 25))
            .remedied_by("Raise"),
        Case::new("five-second-timeouts", 5_050, (Fault::L2, Virtqueue))
            .told([
                delay(SocketWait, 10, 5_040),
                with(&virtio, delay(Virtqueue, 20, 5_020)),
            ])
            .remedied_by("queue"),
        Case {
            layer: Layer::Sandbox,
            ..Case::new("slow-sandboxed-calls", 100, (Fault::L4, SeccompDenied))
                .told((1..9).map(|n| with(&connect, delay(SeccompDenied, n * 10, n * 10))))
                .remedied_by("Allow connect in the sandbox's filter")
        },
        Case::new("all-spans-slower", 60, (Fault::Host, BlockQueue))
            .told([
                with(&disk, delay(BlockQueue, 5, 30)),
                with(&disk, delay(BlockQueue, 32, 54)),
            ])
            .remedied_by("the busiest user of sda"),
        Case::new("memory-kills", 200, (Fault::L3, MemoryReclaim))
            .told((0..4).map(|n| with(&limit, delay(MemoryReclaim, n * 50, n * 50 + 40))))
            .told([with(&limit, delay(OomKill, 199, 199))])
            .remedied_by("memory"),
        Case::new("memory-kills", 200, (Fault::L3, OomKill))
            .told([with(&limit, delay(OomKill, 20, 190))])
            .remedied_by("memory"),
        // Another process of its container, for which it waited.
        Case::new("memory-kills", 200, (Fault::L3, OomKill))
            .told([with(&child, delay(LockWait, 20, 190)), killed])
            .remedied_by("memory"),
        Case::new("bad-gateway", 700, (Fault::L2, TcpRetransmit)).told(
            [(10, 210), (210, 410), (410, 690)]
                .map(|(from, to)| with(&virtio, delay(TcpRetransmit, from, to))),
        ),
        Case::new("bad-gateway", 700, (Fault::L3, TcpRetransmit)).told(
            [(10, 210), (210, 410), (410, 690)]
                .map(|(from, to)| with(&veth, delay(TcpRetransmit, from, to))),
        ),
        Case::new("snat-exhausted", 3_100, (Fault::L3, Conntrack))
            .told([
                with(&veth, delay(Conntrack, 20, 20)),
                with(&veth, delay(TcpRetransmit, 20, 1_020)),
                with(&veth, delay(Conntrack, 1_021, 1_021)),
                with(&veth, delay(TcpRetransmit, 1_020, 3_020)),
            ])
            .remedied_by("nf_conntrack_max"),
        Case {
            stolen_ms: 90,
            ..Case::new("vm-stutters", 100, (Fault::L1, Steal))
                .told([delay(Runqueue, 0, 70)])
                .remedied_by("host")
        },
        Case {
            layer: Layer::FullVirtualisation,
            ..Case::new("vm-stutters", 100, (Fault::L1, KvmExit))
                .told((0..4).map(|n| with(&exit, delay(KvmExit, n * 25, n * 25 + 20))))
        },
    ]
}

fn verdict(case: &Case) -> Option<Arc<crate::verdict::Verdict>> {
    let mut pipeline = pipeline();
    feed(&mut pipeline, case.delays.iter().cloned());
    if case.stolen_ms > 0 {
        let steal = Steal {
            cpu: 0,
            start: at(0),
            end: at(case.span_ms),
            stolen_ns: case.stolen_ms * MS,
        };
        pipeline.on_event(&Event::Steal(steal), at(case.span_ms));
    }
    let mut spans = batch(
        at(case.span_ms),
        Confidence::ThreadInferred,
        vec![span(1, 0, 0, case.span_ms)],
    );
    let mut identity = identity();
    identity.stack.0[0].layer = case.layer;
    spans.resources[0].joined.identity = Some(Arc::new(identity));
    judged(&mut pipeline, spans).remove(0).verdict
}

#[test]
fn each_symptom_of_the_knowledge_is_localised() {
    let (cases, symptoms) = (cases(), &data().localisation.symptoms);
    for symptom in symptoms {
        let has_case = cases.iter().any(|case| case.symptom == symptom.id);
        assert!(has_case, "{}: no case", symptom.id);
    }
    for case in &cases {
        let symptom = symptoms.iter().find(|s| s.id == case.symptom);
        let symptom = symptom.unwrap_or_else(|| panic!("{}: no such symptom", case.symptom));
        let verdict = verdict(case).unwrap_or_else(|| panic!("{}: no verdict", case.symptom));
        let said = (verdict.fault, verdict.cause);
        assert_eq!(said, case.expected, "{}", case.symptom);
        assert!(symptom.faults.contains(&said.0), "{}: {said:?}", symptom.id);
        assert!(symptom.causes.contains(&said.1), "{}: {said:?}", symptom.id);
        assert!(!verdict.remedy.is_empty(), "{}", symptom.id);
        assert!(
            verdict.remedy.contains(case.remedy),
            "{}: {}",
            symptom.id,
            verdict.remedy
        );
    }
}

/// Nothing of it is blamed on a layer where the kernel tells nothing.
#[test]
fn without_its_events_no_symptom_is_a_verdict() {
    for case in cases() {
        let silent = Case {
            delays: Vec::new(),
            ..case
        };
        assert_eq!(verdict(&silent), None, "{}", silent.symptom);
    }
}
