//! What people and machines look at: web page, HTTP API, Prometheus.
