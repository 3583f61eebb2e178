//! The thread that empties the ring buffer, polls steal and counts losses.

use std::{
    io,
    os::fd::AsRawFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use aya::{
    Ebpf,
    maps::{MapData, PerCpuArray, RingBuf},
};
use aya_log::EbpfLogger;

use super::object::{take, wrong};
use crate::{
    event::Event,
    host::roots::Roots,
    metrics::{AgentMetrics, Reason, Sensor as SensorLabel},
    sensor::{self, SENSORS, steal::StealPoller},
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
    steal: StealPoller,
    metrics: AgentMetrics,
    stop: Arc<AtomicBool>,
}

impl Reader {
    pub fn new(
        ebpf: &mut Ebpf,
        roots: &Roots,
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
            steal: StealPoller::new(&roots.procfs),
            metrics,
            stop,
        })
    }

    /// Until told to stop; what is in the ring by then is still handed on.
    pub fn run(&mut self, mut sink: impl FnMut(Vec<Event>)) {
        loop {
            let last = self.stop.load(Ordering::Acquire);
            self.drain(&mut sink);
            self.poll_steal(&mut sink);
            let now = MonoNs::now();
            if last || now.since(self.lost_read) >= LOSS_PERIOD_NS {
                self.lost_read = now;
                self.count_losses();
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

    fn drain(&mut self, sink: &mut impl FnMut(Vec<Event>)) {
        loop {
            let mut batch = Vec::new();
            while batch.len() < MAX_BATCH {
                let Some(record) = self.ring.next() else {
                    break;
                };
                match sensor::decode(&record) {
                    Ok(event) => batch.push(event),
                    Err(error) => {
                        tracing::debug!(%error, "Record not understood");
                        let reason = "undecodable";
                        let dropped = &self.metrics.events_dropped;
                        dropped.get_or_create(&Reason { reason }).inc();
                    }
                }
            }
            if batch.is_empty() {
                return;
            }
            let full = batch.len() == MAX_BATCH;
            self.metrics
                .events
                .get_or_create(&SensorLabel {
                    sensor: sensor::cpu::NAME,
                })
                .inc_by(batch.len() as u64);
            sink(batch);
            if !full {
                return;
            }
        }
    }

    fn poll_steal(&mut self, sink: &mut impl FnMut(Vec<Event>)) {
        let mut stolen = Vec::new();
        if let Err(error) = self.steal.poll(MonoNs::now(), &mut stolen) {
            tracing::debug!(%error, "Cannot read steal");
        }
        if !stolen.is_empty() {
            sink(stolen.into_iter().map(Event::Steal).collect());
        }
    }

    fn count_losses(&mut self) {
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
                *before = total;
            }
        }
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
