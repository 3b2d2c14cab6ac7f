//! Health over HTTP/1.1, for what watches nodes from outside: `/live`, `/ready`, `/devices`.
//!
//! It has a thread and a runtime of its own, so that it answers though the node's are busy or hung, and so that whoever asks too
//! often slows down nothing else.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use ringhold_cluster::wire::{DeviceVerdict, Health, Verdict};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

use super::Pulse;
use crate::vital::caught;

/// Asks at one time; others wait to be accepted.
const CONNECTIONS_MAX: usize = 16;
/// A request line and its headers.
const HEAD_BYTES_MAX: usize = 8 << 10;
const HEADERS_MAX: usize = 32;
/// From its start to the end of its headers, and to the end of the answer.
const HEAD_LIMIT: Duration = Duration::from_secs(3);
const REQUEST_LIMIT: Duration = Duration::from_secs(10);
/// How long the node may take to say how it does.
const LOOK_LIMIT: Duration = Duration::from_secs(2);

/// What it tells about.
pub struct About {
    pub pulse: Arc<Pulse>,
    /// Looks at the node. It may wait for locks of the node's.
    pub look: Box<dyn Fn() -> Health + Send + Sync>,
}

/// Answers until it is dropped.
pub struct Http {
    address: SocketAddr,
    /// Its end is the end of the thread.
    _stop: oneshot::Sender<()>,
}

impl Http {
    /// Listens, and answers from a thread of its own.
    pub fn start(listen: SocketAddr, about: About) -> io::Result<Http> {
        let listener = TcpListener::bind(listen)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            // For looks at a node whose locks are held; beyond these, asks time out.
            .max_blocking_threads(2)
            .build()?;
        let (stop, stopped) = oneshot::channel();
        std::thread::Builder::new().name("health".into()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    biased;
                    // Sent or dropped, it is the end.
                    _ = stopped => {}
                    () = accept(listener, Arc::new(about)) => {}
                }
            });
            // A look that hangs must not hold up the end of the node.
            runtime.shutdown_background();
        })?;
        Ok(Http { address, _stop: stop })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn accept(listener: TcpListener, about: Arc<About>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(e) => return tracing::error!("health is not told over HTTP: {e}"),
    };
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let about = about.clone();
                tokio::spawn(async move {
                    if let Err(why) = caught(serve(stream, about)).await {
                        tracing::error!("an ask for health panicked ({why}): a bug of Ringhold");
                    }
                    drop(slot);
                });
            }
            // Out of descriptors, most likely: some will be free again.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn serve(stream: TcpStream, about: Arc<About>) {
    let answer = service_fn(move |request: Request<Incoming>| {
        let about = about.clone();
        async move { Ok::<_, Infallible>(answer(&request, &about).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        // A connection that is kept would keep its place from others.
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), answer);
    // What is wrong with a request is the asker's business; it has been told, if it listens.
    let _ = timeout(REQUEST_LIMIT, connection).await;
}

async fn answer(request: &Request<Incoming>, about: &Arc<About>) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    if !["/live", "/ready", "/devices"].contains(&path) {
        let body = json!({"error": "there is no such path", "paths": ["/live", "/ready", "/devices"]});
        return response(StatusCode::NOT_FOUND, &body);
    }
    // A body is sent to neither: hyper leaves it out where HEAD asked.
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut refused = response(StatusCode::METHOD_NOT_ALLOWED, &json!({"error": "only GET and HEAD are answered"}));
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    // This alone takes no lock, so that a node that hangs is told from one that is slow.
    if path == "/live" {
        let live = about.pulse.live();
        return response(status(live.ok), &verdict("live", &live));
    }
    let looking = about.clone();
    let look = tokio::task::spawn_blocking(move || (looking.look)());
    let Ok(Ok(health)) = timeout(LOOK_LIMIT, look).await else {
        let reasons = vec![format!("the node did not say how it does within {} s", LOOK_LIMIT.as_secs())];
        return response(StatusCode::SERVICE_UNAVAILABLE, &verdict(&path[1..], &Verdict { ok: false, reasons }));
    };
    match path {
        "/ready" => response(status(health.ready.ok), &verdict("ready", &health.ready)),
        _ => {
            let all = health.devices.iter().all(|device| device.verdict != DeviceVerdict::Down);
            response(status(all), &json!({"devices": health.devices}))
        }
    }
}

fn status(ok: bool) -> StatusCode {
    if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

fn verdict(what: &str, verdict: &Verdict) -> Value {
    json!({what: verdict.ok, "reasons": verdict.reasons})
}

fn response(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(format!("{body}\n"))));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
