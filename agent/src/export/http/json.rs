//! JSON answers in which no character bends what a terminal or an editor shows.

use axum::response::{IntoResponse, Response};
use http::header;
use serde_json::Value;

use crate::stack::report::plain_json;

/// As axum's own, for documents with names that others chose.
pub(super) struct Json(pub Value);

impl IntoResponse for Json {
    fn into_response(self) -> Response {
        let head = [(header::CONTENT_TYPE, "application/json")];
        (head, plain_json(&self.0.to_string())).into_response()
    }
}
