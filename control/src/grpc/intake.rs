//! What agents send is read one message at a time of each, in bounded time, and looked at before it is decoded.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body as Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};
use tower::{Layer, Service};

use super::bounds::{self, Refusal, Shape};
use crate::pki;

/// How long a message may take from its first byte to its last.
const READ: Duration = Duration::from_secs(60);
/// Messages of one agent that may wait until those before them are done: an agent sends one after the other, and after a lost
/// connection one more.
const WAITING: usize = 4;
/// Bytes that a message to join has at most, and whatever else comes without a certificate.
const ENROLL_MAX: usize = 64 * 1024;
/// gRPC's frame before a message: whether it is compressed, and its length (grpc/doc/PROTOCOL-HTTP2.md).
const FRAME: usize = 5;

/// Calls whose message is of an agent that has joined: their paths, and what is counted in them.
static CALLS: [(&str, &Shape); 2] = [
    ("/sluicegate.agent.v1.Agent/Report", &bounds::REPORT),
    ("/sluicegate.agent.v1.Agent/Sync", &bounds::SYNC),
];

/// Puts the bounds in front of the service.
#[derive(Clone)]
pub(super) struct Intake {
    most: usize,
    turns: Arc<Turns>,
}

impl Intake {
    /// Messages have `most` bytes at most.
    pub(super) fn new(most: usize) -> Self {
        Self { most, turns: Arc::default() }
    }
}

impl<S> Layer<S> for Intake {
    type Service = Bounded<S>;

    fn layer(&self, inner: S) -> Bounded<S> {
        Bounded { inner, intake: self.clone() }
    }
}

/// A service behind bounds.
#[derive(Clone)]
pub(super) struct Bounded<S> {
    inner: S,
    intake: Intake,
}

impl<S> Service<Request<Body>> for Bounded<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let intake = self.intake.clone();
        let waiting = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, waiting);
        Box::pin(async move {
            let call = CALLS.iter().find(|(path, _)| *path == request.uri().path());
            let Some((path, shape)) = call else {
                // To join: short, and without lists.
                return match read(request, &bounds::ENROLL, ENROLL_MAX).await {
                    Ok(request) => inner.call(request).await,
                    Err(refused) => Ok(refused.into_http()),
                };
            };
            // Nothing is read of whoever has not joined.
            let Some(peer) = caller(&request) else {
                return Ok(super::stranger().into_http());
            };
            let Some(_turn) = intake.turns.clone().take(peer, path).await else {
                let why = "too many messages of this agent wait already: send one after the other";
                return Ok(Status::resource_exhausted(why).into_http());
            };
            match read(request, shape, intake.most).await {
                Ok(request) => inner.call(request).await,
                Err(refused) => Ok(refused.into_http()),
            }
        })
    }
}

fn caller(request: &Request<Body>) -> Option<String> {
    let connection = request.extensions().get::<TlsConnectInfo<TcpConnectInfo>>()?;
    let certificates = connection.peer_certs()?;
    pki::peer_id(certificates.first()?).ok()
}

/// The request with its message read, if it may be decoded.
async fn read(request: Request<Body>, shape: &Shape, most: usize) -> Result<Request<Body>, Status> {
    let (head, body) = request.into_parts();
    let whole = axum::body::to_bytes(Bytes::new(body), FRAME + most);
    let whole = match tokio::time::timeout(READ, whole).await {
        Ok(Ok(whole)) => whole,
        Ok(Err(_)) => {
            return Err(Status::resource_exhausted(format!(
                "the message was not read to its end: it has more than {most} bytes, or the connection ended"
            )));
        }
        Err(_) => return Err(Status::deadline_exceeded(format!("the message took longer than {READ:?}"))),
    };
    // What is no frame of one message is refused by what reads it next.
    if whole.first() == Some(&0)
        && let Some(message) = whole.get(FRAME..)
    {
        bounds::check(message, shape).map_err(|refusal| match refusal {
            Refusal::TooMany(..) => Status::resource_exhausted(refusal.to_string()),
            Refusal::Malformed(_) => Status::invalid_argument(refusal.to_string()),
        })?;
    }
    Ok(Request::from_parts(head, Body::new(Bytes::from(whole))))
}

type Caller = (String, &'static str);

/// Whose message is being read.
#[derive(Default)]
struct Turns(Mutex<HashMap<Caller, Arc<Semaphore>>>);

/// The only one that reads a message of this agent and call.
struct Turn {
    turns: Arc<Turns>,
    caller: Caller,
    _permit: OwnedSemaphorePermit,
}

impl Turns {
    /// Waits until no other message of this agent is read by this call; `None` if enough of them wait already.
    async fn take(self: Arc<Self>, peer: String, path: &'static str) -> Option<Turn> {
        let caller = (peer, path);
        let own = {
            let mut all = self.lock();
            let own = all.entry(caller.clone()).or_insert_with(|| Arc::new(Semaphore::new(1)));
            // The list has one, whoever reads another, and whoever waits one each.
            if Arc::strong_count(own) > 1 + WAITING {
                return None;
            }
            own.clone()
        };
        // Nobody closes it.
        let permit = own.acquire_owned().await.ok()?;
        Some(Turn { turns: self, caller, _permit: permit })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Caller, Arc<Semaphore>>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut all = self.turns.lock();
        // The list's and this one's: nobody waits.
        if all.get(&self.caller).is_some_and(|own| Arc::strong_count(own) <= 2) {
            all.remove(&self.caller);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// Once, as nobody is to be woken.
    fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
        std::pin::Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
    }

    /// What comes of a message of so many bytes without a certificate, and whether it was handed on.
    async fn from_nobody(path: &str, length: usize) -> (Option<tonic::Code>, bool) {
        let called = Arc::new(Mutex::new(false));
        let note = called.clone();
        let inner = tower::service_fn(move |_: Request<Body>| {
            *note.lock().unwrap() = true;
            std::future::ready(Ok::<_, std::convert::Infallible>(Response::new(Body::default())))
        });
        let mut message = vec![0; FRAME];
        message[1..].copy_from_slice(&u32::try_from(length).unwrap().to_be_bytes());
        // A text of field 1, but for its key and length.
        message.extend([0x0a, 0x80 | (length - 4) as u8 & 0x7f, 0x80 | ((length - 4) >> 7) as u8 & 0x7f]);
        message.push(((length - 4) >> 14) as u8);
        message.resize(FRAME + length, b'k');
        let request = Request::builder().uri(path).body(Body::new(Bytes::from(message))).unwrap();
        let answer = Intake::new(4 << 20).layer(inner).call(request).await.unwrap();
        let status = Status::from_header_map(answer.headers()).map(|status| status.code());
        let called = *called.lock().unwrap();
        (status, called)
    }

    #[tokio::test]
    async fn of_nobody_no_message_is_read_but_a_short_one_to_join() {
        for (path, _) in CALLS {
            assert_eq!(from_nobody(path, 1_000).await, (Some(tonic::Code::Unauthenticated), false), "{path}");
        }
        let join = "/sluicegate.agent.v1.Agent/Enroll";
        assert_eq!(from_nobody(join, ENROLL_MAX).await, (None, true));
        assert_eq!(from_nobody(join, ENROLL_MAX + 1).await, (Some(tonic::Code::ResourceExhausted), false));
    }

    #[tokio::test]
    async fn of_one_agent_one_message_is_read_a_few_wait_and_nothing_is_left_of_it() {
        let turns: Arc<Turns> = Arc::default();
        let take = |peer: &str, path| turns.clone().take(peer.to_owned(), path);
        let (report, sync) = (CALLS[0].0, CALLS[1].0);
        let first = take("a", report).await.unwrap();
        let _other = take("b", report).await.unwrap();
        let _stream = take("a", sync).await.unwrap();
        let mut waiting = Vec::new();
        for _ in 0..WAITING {
            let mut next = Box::pin(take("a", report));
            assert!(poll(&mut next).is_pending());
            waiting.push(next);
        }
        assert!(matches!(poll(&mut Box::pin(take("a", report))), Poll::Ready(None)), "enough");
        let mut last = waiting.pop().unwrap();
        drop(waiting);
        drop(first);
        let second = match poll(&mut last) {
            Poll::Ready(turn) => turn.unwrap(),
            Poll::Pending => panic!("it is its turn"),
        };
        assert!(poll(&mut Box::pin(take("a", report))).is_pending());
        drop(second);
        assert_eq!(turns.lock().len(), 2, "b's, and a's stream");
    }
}
