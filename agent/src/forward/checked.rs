//! Keeps answers that are not gRPC away from the gRPC framing: what a proxy or a web server
//! says with an HTTP status is understood by that status.

use std::task::{Context, Poll};

use futures_util::{FutureExt, future::BoxFuture};
use http::{Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client as Hyper;
use thiserror::Error;
use tower::{BoxError, Service};

use super::{
    answer::Answer,
    client::{Connector, read_answer},
};

/// An answer of HTTP where one of gRPC was due, carried as an error through the framing.
#[derive(Debug, Error)]
#[error("not an answer of gRPC")]
pub(super) struct Foreign(pub Answer);

/// The HTTP client under gRPC.
#[derive(Clone)]
pub(super) struct Checked(pub Hyper<Connector, tonic::body::Body>);

impl Service<Request<tonic::body::Body>> for Checked {
    type Response = Response<Incoming>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<Incoming>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        let response = self.0.request(request);
        async move {
            let response = response.await?;
            if is_grpc(&response) {
                return Ok(response);
            }
            Err(match read_answer(response).await {
                // A success, but of something that does not speak gRPC.
                Answer::Delivered { .. } => {
                    Foreign(super::answer::garbage("not gRPC".to_owned())).into()
                }
                answer => Foreign(answer).into(),
            })
        }
        .boxed()
    }
}

fn is_grpc(response: &Response<Incoming>) -> bool {
    let headers = response.headers();
    if headers.contains_key("grpc-status") {
        return true;
    }
    let kind = headers.get(header::CONTENT_TYPE);
    response.status() == StatusCode::OK
        && kind.is_none_or(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}
