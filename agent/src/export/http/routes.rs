//! The endpoints. Each handler asks the sources and answers; none keeps a state.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, LazyLock},
    time::Duration,
};

use axum::{
    Router,
    extract::{Path, Query, State, rejection::QueryRejection},
    middleware::from_fn_with_state,
    response::{
        IntoResponse, Response,
        sse::{KeepAlive, Sse},
    },
    routing::get,
};
use http::{HeaderMap, HeaderName, StatusCode, header};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{HttpConfig, guard, json::Json};
use crate::{
    event::Event,
    export::{
        ExportSources, LabelSource, Readiness, lost,
        prometheus::Format,
        query::{self, QueryError},
        store::{Filter, StoredEvent},
        stream::Client,
        trace::localise,
        view::{self, EventRow, IncidentRow},
    },
    knowledge::show::Overview,
    time::{MonoNs, UnixNs},
    trace::read::parse_trace_id,
};

const PAGE: &str = include_str!("../page/index.html");
const STYLE: &str = include_str!("../page/app.css");
const SCRIPT: &str = include_str!("../page/app.js");
const TRACE_SCRIPT: &str = include_str!("../page/trace.js");
const ICON: &str = include_str!("../page/icon.svg");
const OPENAPI: &str = include_str!("../../../../deploy/openapi.yaml");

/// What the handlers share.
#[derive(Clone)]
struct App {
    sources: ExportSources,
    stream_places: Arc<Semaphore>,
    stop: CancellationToken,
}

type Pairs = Result<Query<Vec<(String, String)>>, QueryRejection>;

/// All routes, guarded.
pub(super) fn router(
    sources: ExportSources,
    config: &HttpConfig,
    address: SocketAddr,
    stop: CancellationToken,
) -> Router {
    let app = App {
        sources,
        stream_places: Arc::new(Semaphore::new(config.max_stream_clients)),
        stop,
    };
    let allowed: guard::AllowedHosts = address
        .ip()
        .is_loopback()
        .then(|| config.allowed_hosts.clone().into());
    Router::new()
        .route(
            "/",
            get(|| async { text("text/html; charset=utf-8", PAGE) }),
        )
        .route(
            "/app.css",
            get(|| async { text("text/css; charset=utf-8", STYLE) }),
        )
        .route(
            "/app.js",
            get(|| async { text("text/javascript; charset=utf-8", SCRIPT) }),
        )
        .route(
            "/trace.js",
            get(|| async { text("text/javascript; charset=utf-8", TRACE_SCRIPT) }),
        )
        .route("/icon.svg", get(|| async { text("image/svg+xml", ICON) }))
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route(
            "/api/v1/openapi.yaml",
            get(|| async { text("application/yaml", OPENAPI) }),
        )
        .route("/api/v1/host", get(host))
        .route("/api/v1/sensors", get(sensors))
        .route("/api/v1/workloads", get(workloads))
        .route("/api/v1/spans", get(spans))
        .route("/api/v1/verdicts", get(verdicts))
        .route("/api/v1/traces/{trace_id}", get(trace))
        .route("/api/v1/incidents", get(incidents))
        .route("/api/v1/events", get(events))
        .route("/api/v1/layers", get(layers))
        .route("/api/v1/log-matches", get(log_matches))
        .route("/api/v1/stream", get(stream))
        .fallback(|| async {
            error(
                StatusCode::NOT_FOUND,
                "no such path: see /api/v1/openapi.yaml",
            )
        })
        .method_not_allowed_fallback(|| async {
            error(
                StatusCode::METHOD_NOT_ALLOWED,
                "this port only shows: use GET",
            )
        })
        .layer(from_fn_with_state(allowed, guard::guard))
        .with_state(app)
}

async fn metrics(State(app): State<App>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok());
    let format = Format::negotiate(accept);
    let page = tokio::task::spawn_blocking(move || {
        let sources = &app.sources;
        let counted = (sources.counted)();
        sources
            .exposition
            .text(format, &counted, &sources.label, MonoNs::now())
    });
    match page.await {
        Ok(page) => ([(header::CONTENT_TYPE, format.content_type())], page).into_response(),
        Err(failed) => {
            tracing::error!(error = %failed, "Making the metrics page failed");
            error(
                StatusCode::INTERNAL_SERVER_ERROR,
                "making the page failed: see the log",
            )
        }
    }
}

async fn healthz(State(app): State<App>) -> Response {
    let health = (app.sources.health)();
    let ok = health.failed.is_empty();
    verdict_of(ok, json!({ "ok": ok, "failed": health.failed }))
}

async fn readyz(State(app): State<App>) -> Response {
    let Readiness {
        mut waiting_for,
        degraded,
    } = (app.sources.readiness)();
    if app.stop.is_cancelled() {
        waiting_for.push("nothing: the agent is stopping".to_owned());
    }
    let ready = waiting_for.is_empty();
    let body = json!({ "ready": ready, "waiting_for": waiting_for, "degraded": degraded });
    verdict_of(ready, body)
}

fn verdict_of(good: bool, body: Value) -> Response {
    let status = if good {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(body)).into_response()
}

async fn host(State(app): State<App>) -> Json {
    Json(view::to_json(&(app.sources.host)()))
}

async fn sensors(State(app): State<App>) -> Json {
    Json(json!({ "sensors": (app.sources.sensors)() }))
}

async fn workloads(State(app): State<App>, pairs: Pairs) -> Result<Json, QueryError> {
    let filter = parse(pairs, "limit")?;
    // Names of cgroups may have to be looked for.
    let rows = tokio::task::spawn_blocking(move || workload_rows(&app.sources, filter.limit));
    let rows = rows.await.unwrap_or_else(|failed| {
        tracing::error!(error = %failed, "Listing the workloads failed");
        Vec::new()
    });
    Ok(Json(json!({ "workloads": rows })))
}

/// Processes that sent spans, the latest first, then the other cgroups that were measured.
fn workload_rows(sources: &ExportSources, limit: usize) -> Vec<view::WorkloadRow> {
    let workload_of = |cgroup| (sources.label)(cgroup).map(|(_, workload)| workload);
    let mut rows: Vec<_> = sources
        .store
        .workloads(limit)
        .iter()
        .map(|seen| view::workload_row(seen, &sources.label))
        .collect();
    let counted = (sources.counted)();
    let cgroups = counted.cpu.iter().map(|cpu| cpu.cgroup_id);
    let cgroups: BTreeSet<u64> = cgroups
        .chain(
            counted
                .measured
                .iter()
                .map(|measured| measured.key.cgroup_id),
        )
        .filter(|id| !rows.iter().any(|row| row.workload.cgroup_id == *id))
        .collect();
    let room = limit.saturating_sub(rows.len());
    let mut measured: Vec<_> = cgroups
        .into_iter()
        .filter_map(|id| Some((id, workload_of(id)?)))
        .filter(|(_, workload)| !workload.display_name().is_empty())
        .collect();
    measured.sort_by_cached_key(|(_, workload)| workload.display_name());
    let measured = measured.into_iter().take(room);
    rows.extend(measured.map(|(id, workload)| view::measured_row(workload, (sources.stack)(id))));
    let lost = lost::by_cgroup(&counted);
    for row in &mut rows {
        row.lost = lost
            .get(&row.workload.cgroup_id)
            .cloned()
            .unwrap_or_default();
    }
    rows
}

async fn spans(State(app): State<App>, pairs: Pairs) -> Result<Json, QueryError> {
    let filter = parse(pairs, "limit, service, cause, trace_id")?;
    let spans = app.sources.store.spans(&filter);
    let names = Some(&app.sources.label);
    let rows: Vec<_> = spans.iter().map(|s| view::span_json(s, names)).collect();
    Ok(Json(json!({ "spans": rows })))
}

async fn verdicts(State(app): State<App>, pairs: Pairs) -> Result<Json, QueryError> {
    let filter = parse(pairs, "limit, service, cause, trace_id")?;
    let spans = app.sources.store.verdicts(&filter);
    let names = Some(&app.sources.label);
    let rows = spans.iter().filter_map(|s| view::verdict_json(s, names));
    let rows: Vec<_> = rows.collect();
    Ok(Json(json!({ "verdicts": rows })))
}

/// One trace, localised: what this node knows of it.
async fn trace(State(app): State<App>, Path(id): Path<String>, pairs: Pairs) -> Response {
    if let Err(error) = parse(pairs, "") {
        return error.into_response();
    }
    let trace_id = match parse_trace_id(&id) {
        Ok(trace_id) => trace_id,
        Err(bad) => return error(StatusCode::BAD_REQUEST, &bad.to_string()),
    };
    let report = tokio::task::spawn_blocking(move || localise(&app.sources, trace_id)).await;
    match report {
        Ok(Some(report)) => Json(view::to_json(&report)).into_response(),
        Ok(None) => error(
            StatusCode::NOT_FOUND,
            "no span of that trace is here: the latest ones are, and longer those of traces with a verdict",
        ),
        Err(failed) => {
            tracing::error!(error = %failed, "Localising a trace failed");
            error(
                StatusCode::INTERNAL_SERVER_ERROR,
                "localising the trace failed: see the log",
            )
        }
    }
}

async fn incidents(State(app): State<App>, pairs: Pairs) -> Result<Json, QueryError> {
    let filter = parse(pairs, "limit, service, cause")?;
    let found = app.sources.store.incidents(&filter);
    let now = UnixNs::now();
    let rows: Vec<_> = found
        .rows
        .iter()
        .map(|i| IncidentRow::new(i, now))
        .collect();
    Ok(Json(json!({
        "incidents": rows,
        "total": found.incidents,
        "verdicts": found.verdicts,
        "convergence": found.convergence(),
    })))
}

async fn log_matches(State(app): State<App>, pairs: Pairs) -> Result<Json, QueryError> {
    let filter = parse(pairs, "limit")?;
    let matches = (app.sources.log_matches)(filter.limit);
    Ok(Json(json!({ "log_matches": matches })))
}

async fn events(State(app): State<App>, pairs: Pairs) -> Result<Json, QueryError> {
    let filter = parse(pairs, "limit, cause, from, to, workload, trace_id")?;
    let events = app.sources.store.events(&filter);
    let label = &app.sources.label;
    let rows = events.iter().filter_map(|e| event_row(e, label));
    let wanted = |row: &EventRow| filter.workload.as_ref().is_none_or(|w| *w == row.workload);
    let rows: Vec<_> = rows.filter(wanted).take(filter.limit).collect();
    let mut lines = (app.sources.log_matches)(usize::MAX);
    let (from, to) = app.sources.store.time_of(&filter);
    lines.retain(|line| {
        let at = line.start_unix_nano.parse().unwrap_or_default();
        filter.cause.is_none_or(|cause| line.cause == Some(cause))
            && filter.workload.as_ref().is_none_or(|w| *w == line.workload)
            && (from..=to).contains(&UnixNs(at))
    });
    lines.truncate(filter.limit);
    Ok(Json(json!({ "events": rows, "log_matches": lines })))
}

fn event_row(stored: &StoredEvent, label: &LabelSource) -> Option<EventRow> {
    let name_of = |cgroup| label(cgroup).map_or_else(String::new, |(_, w)| w.display_name());
    let start_unix_nano = stored.start.0.to_string();
    Some(match &stored.event {
        Event::Delay(d) => EventRow {
            cause: d.cause,
            start_unix_nano,
            duration_ms: view::ms(d.end.since(d.start)),
            pid: d.process.pid,
            tid: d.tid,
            cpu: d.cpu,
            cgroup_id: d.cgroup_id,
            workload: name_of(d.cgroup_id),
            limiter: d
                .particulars
                .limiter()
                .map_or_else(String::new, |l| l.cgroup_path.clone()),
        },
        Event::Steal(s) => EventRow {
            cause: stored.cause(),
            start_unix_nano,
            duration_ms: view::ms(s.stolen_ns),
            pid: 0,
            tid: 0,
            cpu: s.cpu,
            cgroup_id: 0,
            workload: String::new(),
            limiter: String::new(),
        },
        // The store keeps none of them.
        Event::Consumption(_)
        | Event::Loss(_)
        | Event::Saving(_)
        | Event::Turn(_)
        | Event::Ask(_)
        | Event::Away(_) => return None,
    })
}

/// What is known of layers and causes: the help of the page.
async fn layers() -> Json {
    static OVERVIEW: LazyLock<Value> = LazyLock::new(|| view::to_json(&Overview::new()));
    Json(OVERVIEW.clone())
}

async fn stream(State(app): State<App>) -> Response {
    let Ok(permit) = app.stream_places.try_acquire_owned() else {
        let mut response = error(
            StatusCode::SERVICE_UNAVAILABLE,
            "too many streams are open: close one, or ask /api/v1/verdicts instead",
        );
        let soon = http::HeaderValue::from_static("30");
        response.headers_mut().insert(header::RETRY_AFTER, soon);
        return response;
    };
    let client = Client {
        messages: app.sources.store.subscribe(),
        sensors: app.sources.sensors,
        stop: app.stop,
        metrics: app.sources.metrics,
        _permit: permit,
    };
    let keep_alive = KeepAlive::new().interval(Duration::from_secs(15));
    Sse::new(client.events())
        .keep_alive(keep_alive)
        .into_response()
}

impl IntoResponse for QueryError {
    fn into_response(self) -> Response {
        error(StatusCode::BAD_REQUEST, &self.to_string())
    }
}

fn error(status: StatusCode, sentence: &str) -> Response {
    (status, Json(json!({ "error": sentence }))).into_response()
}

/// The query of a request, or what is wrong with it.
fn parse(pairs: Pairs, known: &'static str) -> Result<Filter, QueryError> {
    let Query(pairs) = pairs.map_err(|e| QueryError::Unreadable(e.body_text()))?;
    query::parse(pairs, known)
}

/// An embedded file. It changes with the binary only, and asking again is cheap.
fn text(kind: &'static str, body: &'static str) -> ([(HeaderName, &'static str); 1], &'static str) {
    ([(header::CONTENT_TYPE, kind)], body)
}
