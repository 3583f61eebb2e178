//! The thread that empties the ring buffer, polls what has no event and counts losses.

use std::{
    io,
    os::fd::AsRawFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use agent_common::event::sensor::{COUNT, PROCESS};
use aya::{
    Ebpf,
    maps::{MapData, PerCpuArray, RingBuf},
};
use aya_log::EbpfLogger;

use super::{
    object::{take, wrong},
    sink::Sink,
};
use crate::{
    event::{Change, Event, Loss},
    metrics::{AgentMetrics, Reason, Sensor as SensorLabel},
    sensor::{Decoded, Decoder, Poller, SENSORS},
    time::MonoNs,
};

/// The kernel side wakes the thread only when the ring is a quarter full; otherwise it comes
/// by this often. Together that bounds an event's delay without a wake-up per event.
const PERIOD: Duration = Duration::from_millis(50);
/// Between looks at the kernel's loss counters.
const LOSS_PERIOD_NS: u64 = 1_000_000_000;
/// Events handed on at once.
const MAX_BATCH: usize = 1024;

/// What the thread owns.
pub struct Reader {
    ring: RingBuf<MapData>,
    lost: PerCpuArray<MapData, u64>,
    lost_before: Vec<u64>,
    lost_read: MonoNs,
    log: Option<EbpfLogger<&'static dyn tracing_log::log::Log>>,
    decoder: Decoder,
    pollers: Vec<Box<dyn Poller>>,
    metrics: AgentMetrics,
    stop: Arc<AtomicBool>,
}

impl Reader {
    pub fn new(
        ebpf: &mut Ebpf,
        decoder: Decoder,
        pollers: Vec<Box<dyn Poller>>,
        metrics: AgentMetrics,
        stop: Arc<AtomicBool>,
    ) -> io::Result<Self> {
        let lost = PerCpuArray::try_from(take(ebpf, "EVENTS_LOST")?).map_err(wrong)?;
        Ok(Self {
            ring: RingBuf::try_from(take(ebpf, "EVENTS")?).map_err(wrong)?,
            lost_before: vec![0; lost.len() as usize],
            lost,
            lost_read: MonoNs::now(),
            // Without log statements in the object there is no map for them.
            log: EbpfLogger::init(ebpf).ok(),
            decoder,
            pollers,
            metrics,
            stop,
        })
    }

    /// Until told to stop; what is in the ring by then is still handed on.
    pub fn run(&mut self, sink: &mut impl Sink) {
        loop {
            let last = self.stop.load(Ordering::Acquire);
            self.drain(sink);
            self.poll(sink);
            let now = MonoNs::now();
            if last || now.since(self.lost_read) >= LOSS_PERIOD_NS {
                let start = std::mem::replace(&mut self.lost_read, now);
                let events = self.count_losses(sink);
                if events > 0 {
                    let end = now;
                    sink.events(vec![Event::Loss(Loss { start, end, events })]);
                }
            }
            if let Some(log) = &mut self.log {
                log.flush();
            }
            if last {
                return;
            }
            wait_readable(self.ring.as_raw_fd(), PERIOD);
        }
    }

    fn drain(&mut self, sink: &mut impl Sink) {
        loop {
            let mut batch = Vec::new();
            let mut counts = [0u64; COUNT as usize];
            let mut left = MAX_BATCH;
            while left > 0 {
                let Some(record) = self.ring.next() else {
                    break;
                };
                left -= 1;
                match self.decoder.decode(&record) {
                    Ok((sensor, decoded)) => {
                        counts[sensor as usize] += 1;
                        match decoded {
                            Decoded::Event(event) => batch.push(event),
                            Decoded::Change(change) => sink.change(change),
                        }
                    }
                    Err(error) => {
                        tracing::debug!(%error, "Record not understood");
                        let reason = error.reason();
                        let dropped = &self.metrics.events_dropped;
                        dropped.get_or_create(&Reason { reason }).inc();
                    }
                }
            }
            self.count(&counts);
            if !batch.is_empty() {
                sink.events(batch);
            }
            if left > 0 {
                return;
            }
        }
    }

    fn count(&self, counts: &[u64; COUNT as usize]) {
        for entry in SENSORS {
            let Some(sensor) = entry.sensor else { continue };
            let n = counts[sensor.id() as usize];
            if n > 0 {
                let label = SensorLabel { sensor: entry.name };
                self.metrics.events.get_or_create(&label).inc_by(n);
            }
        }
    }

    fn poll(&mut self, sink: &mut impl Sink) {
        let mut events = Vec::new();
        for poller in &mut self.pollers {
            poller.poll(MonoNs::now(), &mut events);
        }
        if !events.is_empty() {
            sink.events(events);
        }
    }

    /// Returns how many were lost since the last look.
    fn count_losses(&mut self, sink: &mut impl Sink) -> u64 {
        let mut all = 0;
        for entry in SENSORS {
            let Some(sensor) = entry.sensor else { continue };
            let Ok(per_cpu) = self.lost.get(&sensor.id(), 0) else {
                continue;
            };
            let total: u64 = per_cpu.iter().sum();
            if let Some(before) = self.lost_before.get_mut(sensor.id() as usize) {
                self.metrics
                    .events_lost
                    .get_or_create(&SensorLabel { sensor: entry.name })
                    .inc_by(total.saturating_sub(*before));
                let grown = total.saturating_sub(*before);
                *before = total;
                if sensor.id() != PROCESS {
                    all += grown;
                } else if grown > 0 {
                    sink.change(Change::Anybody);
                }
            }
        }
        all
    }
}

fn wait_readable(fd: i32, timeout: Duration) {
    let mut poll = libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    };
    let timeout = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: one valid `pollfd`, which outlives the call. Whatever it returns, the ring is
    // looked at next.
    unsafe { libc::poll(&raw mut poll, 1, timeout) };
}
