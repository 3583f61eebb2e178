//! A forwarder under test and requests for it.

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use isostack_agent::{
    forward::{ForwardConfig, ForwardHandle, Forwarder, Health, Outgoing},
    metrics::{AgentMetrics, Reason},
    otlp::Signal,
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use prost::Message;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub struct Agent {
    pub forwarder: Forwarder,
    pub handle: ForwardHandle,
    pub metrics: AgentMetrics,
}

impl Agent {
    pub fn new(address: SocketAddr, protocol: &str, env: &[(&str, &str)]) -> Self {
        Self::tuned(address, protocol, env, |_| {})
    }

    pub fn tuned(
        address: SocketAddr,
        protocol: &str,
        env: &[(&str, &str)],
        tune: impl FnOnce(&mut ForwardConfig),
    ) -> Self {
        Self::at(&format!("http://{address}"), protocol, env, tune)
    }

    pub fn at(
        url: &str,
        protocol: &str,
        env: &[(&str, &str)],
        tune: impl FnOnce(&mut ForwardConfig),
    ) -> Self {
        let env: HashMap<&str, &str> = env.iter().copied().collect();
        let env = |key: &str| env.get(key).map(|v| (*v).to_owned());
        let mut config = ForwardConfig::from_env_and_flags(Some(url), Some(protocol), env)
            .unwrap()
            .unwrap();
        tune(&mut config);
        let metrics = AgentMetrics::default();
        let forwarder = Forwarder::start(&config, metrics.clone());
        Self {
            handle: forwarder.handle(),
            forwarder,
            metrics,
        }
    }

    pub fn send(&self, spans: std::ops::Range<u64>) -> Bytes {
        let payload = request(spans.clone());
        self.handle.enqueue(Outgoing {
            signal: Signal::Traces,
            payload: payload.clone(),
            items: (spans.end - spans.start) as usize,
            permit: None,
        });
        payload
    }

    pub fn send_other(&self, signal: Signal, payload: &'static [u8]) {
        self.handle.enqueue(Outgoing {
            signal,
            payload: Bytes::from_static(payload),
            items: 0,
            permit: None,
        });
    }

    pub fn lost(&self, reason: &'static str) -> u64 {
        let lost = &self.metrics.spans_lost;
        lost.get_or_create(&Reason { reason }).get()
    }

    pub fn retries(&self, reason: &'static str) -> u64 {
        let retries = &self.metrics.export_retries;
        retries.get_or_create(&Reason { reason }).get()
    }

    pub fn forwarded(&self) -> u64 {
        self.metrics.spans_forwarded.get()
    }

    pub fn health(&self, signal: &str) -> Health {
        let state = self.handle.state();
        let found = state.signals.iter().find(|s| s.signal == signal);
        found.unwrap().health.clone()
    }

    /// Waits for what must come to be, however long it takes (a hanging test is a failed
    /// one: the runner ends it).
    pub async fn until(&self, condition: impl Fn(&Self) -> bool) {
        while !condition(self) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Waits until the queue is empty.
    pub async fn settled(&self) {
        self.until(|a| a.metrics.forward_queue.get() == 0).await;
    }
}

/// A request with one resource, one scope, and these spans.
pub fn request(spans: std::ops::Range<u64>) -> Bytes {
    let spans = spans.map(|id| Span {
        trace_id: vec![1; 16],
        span_id: id.to_be_bytes().to_vec(),
        name: format!("span {id}"),
        ..Span::default()
    });
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            scope_spans: vec![ScopeSpans {
                spans: spans.collect(),
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    };
    request.encode_to_vec().into()
}

/// The ids of all spans in a message, as [`request`] gave them.
pub fn ids(message: &[u8]) -> Vec<u64> {
    let request = ExportTraceServiceRequest::decode(message).unwrap();
    let resources = request.resource_spans.into_iter();
    resources
        .flat_map(|r| r.scope_spans)
        .flat_map(|s| s.spans)
        .map(|s| u64::from_be_bytes(s.span_id.try_into().unwrap()))
        .collect()
}

/// A budget of bytes and a permit for `bytes` of it.
pub fn permit(budget: &Arc<Semaphore>, bytes: u32) -> OwnedSemaphorePermit {
    Arc::clone(budget).try_acquire_many_owned(bytes).unwrap()
}
