//! `/api/v1/stream`: server-sent events for the page. A client that does not keep up is cut
//! off (it connects again and reads the API), never buffered for.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::response::sse;
use futures_util::{Stream, stream};
use tokio::{
    sync::{OwnedSemaphorePermit, broadcast, broadcast::error::RecvError},
    time::{Interval, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use super::{Source, view};
use crate::{metrics::AgentMetrics, sensor::SensorStatus, stack::report::plain_json};

/// One message, serialised once for all clients.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    event: &'static str,
    json: Arc<str>,
}

impl Published {
    /// A verdict row.
    pub(crate) fn verdict(row: &serde_json::Value) -> Self {
        Self::new("verdict", row)
    }

    /// A span row.
    pub(crate) fn span(row: &serde_json::Value) -> Self {
        Self::new("span", row)
    }

    fn new(event: &'static str, row: &serde_json::Value) -> Self {
        let json = plain_json(&row.to_string()).into();
        Self { event, json }
    }
}

/// How often the sensors are compared with what the client was told.
const SENSORS_EVERY: Duration = Duration::from_secs(2);

/// What a client's stream needs; dropped with it.
pub(crate) struct Client {
    pub(crate) messages: broadcast::Receiver<Published>,
    pub(crate) sensors: Source<Vec<SensorStatus>>,
    pub(crate) stop: CancellationToken,
    pub(crate) metrics: AgentMetrics,
    /// Its place among the clients.
    pub(crate) _permit: OwnedSemaphorePermit,
}

struct State {
    client: Client,
    ticks: Interval,
    told: Option<Vec<SensorStatus>>,
    lagged: bool,
}

impl Client {
    /// The events: `sensors` at once and when they change, `verdict`, `span`.
    pub(crate) fn events(self) -> impl Stream<Item = Result<sse::Event, Infallible>> {
        let mut ticks = tokio::time::interval(SENSORS_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.metrics.stream_clients.inc();
        let state = State {
            client: self,
            ticks,
            told: None,
            lagged: false,
        };
        stream::unfold(state, |mut state| async {
            let event = state.next().await?;
            Some((Ok(event), state))
        })
    }
}

impl State {
    async fn next(&mut self) -> Option<sse::Event> {
        loop {
            tokio::select! {
                biased;
                () = self.client.stop.cancelled() => return None,
                _ = self.ticks.tick() => {
                    let now = (self.client.sensors)();
                    if self.told.as_ref() != Some(&now) {
                        let json = view::to_json(&now).to_string();
                        self.told = Some(now);
                        return Some(sse::Event::default().event("sensors").data(json));
                    }
                }
                message = self.client.messages.recv() => match message {
                    Ok(m) => return Some(sse::Event::default().event(m.event).data(&*m.json)),
                    Err(RecvError::Closed) => return None,
                    Err(RecvError::Lagged(_)) => {
                        self.lagged = true;
                        return None;
                    }
                }
            }
        }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        if self.lagged {
            self.client.metrics.stream_dropped.inc();
        }
        self.client.metrics.stream_clients.dec();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;

    use super::*;

    #[tokio::test]
    async fn a_client_that_lags_is_dropped_and_counted() {
        let (sender, messages) = broadcast::channel(4);
        let places = Arc::new(tokio::sync::Semaphore::new(1));
        let metrics = AgentMetrics::default();
        let client = Client {
            messages,
            sensors: Arc::new(Vec::new),
            stop: CancellationToken::new(),
            metrics: metrics.clone(),
            _permit: places.clone().try_acquire_owned().unwrap(),
        };
        let mut events = std::pin::pin!(client.events());
        assert!(events.next().await.is_some(), "the sensors");
        let row = serde_json::json!({});
        sender.send(Published::span(&row)).unwrap();
        assert!(events.next().await.is_some());
        assert_eq!(
            (metrics.stream_clients.get(), places.available_permits()),
            (1, 0)
        );
        for _ in 0..5 {
            sender.send(Published::span(&row)).unwrap();
        }
        assert!(events.next().await.is_none());
        assert_eq!(
            (metrics.stream_clients.get(), places.available_permits()),
            (0, 1)
        );
        assert_eq!(metrics.stream_dropped.get(), 1);
    }
}
