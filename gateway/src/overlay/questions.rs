//! Questions through the tunnel, and their answers: how bytes that one agent asks another come there, and come back.
//!
//! What is asked is not known here. A question is a packet of [`super::inside`] with a number that its answer has too. It is sent again
//! until there is an answer, or word that there will be one. Answers are taken of whom was asked, and of nobody else.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::net::Ipv6Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::inside::{self, HEADER};

/// Bytes of a question or an answer at the most: its packet fits the least MTU that IPv6 may have, whatever the other end's is.
pub const BODY: usize = 1280 - HEADER - ID;
const ID: usize = 8;
const MAGIC: [u8; 5] = *b"SLQU\x01";
const QUESTION: u8 = 1;
const ANSWER: u8 = 2;
const WAIT: u8 = 3;
/// Between one time that a question is sent and the next.
const AGAIN: Duration = Duration::from_secs(1);
/// The same, for whom there will be an answer: it may be on its way.
const AGAIN_LATER: Duration = Duration::from_secs(3);
/// How long it is sent to somebody who says nothing.
const SILENCE: Duration = Duration::from_secs(3);
/// How long it is waited for somebody who has said that there will be an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Questions of others that wait to be looked at; beyond, they are lost, as on any network.
const HEARD: usize = 256;

/// The agent's end of all questions; lives as long as it, whichever overlay carries them.
pub struct Questions {
    state: Mutex<State>,
    heard: mpsc::Sender<Heard>,
    malformed: AtomicU64,
    lost: AtomicU64,
}

#[derive(Default)]
struct State {
    out: Option<mpsc::Sender<Vec<u8>>>,
    own: Option<Ipv6Addr>,
    /// The number of the next question.
    next: u64,
    /// Where the words of who was asked go.
    waiting: HashMap<(Ipv6Addr, u64), mpsc::Sender<Word>>,
}

/// What is said of a question.
enum Word {
    Answer(Vec<u8>),
    /// There will be one.
    Wait,
}

/// A question of another agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Its overlay address, as WireGuard has checked it.
    pub from: Ipv6Addr,
    /// The number it gave the question.
    pub id: u64,
    /// The question.
    pub body: Vec<u8>,
}

impl Questions {
    /// Both ends: for who asks and answers, and for who looks at what others ask.
    pub fn new() -> (Arc<Self>, mpsc::Receiver<Heard>) {
        let (heard, hears) = mpsc::channel(HEARD);
        // The standard library seeds each of these from the system's random numbers: an answer to a run before is none to this one.
        let next = RandomState::new().build_hasher().finish();
        let state = Mutex::new(State { next, ..State::default() });
        let questions = Self { state, heard, malformed: AtomicU64::new(0), lost: AtomicU64::new(0) };
        (Arc::new(questions), hears)
    }

    /// From now on packets leave by `out`; when it is full they are lost, as on any network.
    pub(crate) fn leave_by(&self, out: mpsc::Sender<Vec<u8>>) {
        self.state().out = Some(out);
    }

    pub(crate) fn set_own(&self, address: Ipv6Addr) {
        self.state().own = Some(address);
    }

    /// Asks the agent with this overlay address; `None` where it says nothing for three seconds, or that there will be an answer and
    /// gives none within ten.
    pub async fn ask(&self, agent: Ipv6Addr, question: &[u8]) -> Option<Vec<u8>> {
        let (word, mut words) = mpsc::channel(4);
        let id = self.state().expect(agent, word);
        let _forget = Forget { questions: self, of: (agent, id) };
        let begun = Instant::now();
        let mut give_up = begun + SILENCE;
        loop {
            self.send(agent, QUESTION, id, question);
            let sent = Instant::now();
            let mut again = sent + if give_up == begun + PATIENCE { AGAIN_LATER } else { AGAIN };
            loop {
                match tokio::time::timeout_at(again.min(give_up), words.recv()).await {
                    Ok(Some(Word::Answer(answer))) => return Some(answer),
                    Ok(Some(Word::Wait)) => (give_up, again) = (begun + PATIENCE, sent + AGAIN_LATER),
                    Ok(None) | Err(_) => break,
                }
            }
            if Instant::now() >= give_up {
                return None;
            }
        }
    }

    /// Answers a question.
    pub fn answer(&self, heard: &Heard, answer: &[u8]) {
        self.send(heard.from, ANSWER, heard.id, answer);
    }

    /// Says that a question will be answered.
    pub fn wait(&self, heard: &Heard) {
        self.send(heard.from, WAIT, heard.id, &[]);
    }

    /// Packets that were none of what they said they are.
    pub fn malformed(&self) -> u64 {
        self.malformed.load(Ordering::Relaxed)
    }

    /// Questions of others that were not looked at, because too many came.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Whether `packet` was one of these: then it has been taken, and goes no further.
    pub(crate) fn consume(&self, packet: &[u8]) -> bool {
        let Some(inside) = inside::parse(packet, MAGIC) else { return false };
        let mut state = self.state();
        if state.own != Some(inside.destination) {
            return true;
        }
        let Some((id, body)) = inside.body.split_first_chunk().filter(|(_, body)| body.len() <= BODY) else {
            self.malformed.fetch_add(1, Ordering::Relaxed);
            return true;
        };
        let (from, id) = (inside.source, u64::from_be_bytes(*id));
        let word = match inside.kind {
            QUESTION => {
                if self.heard.try_send(Heard { from, id, body: body.to_vec() }).is_err() {
                    self.lost.fetch_add(1, Ordering::Relaxed);
                }
                return true;
            }
            ANSWER => Word::Answer(body.to_vec()),
            WAIT => Word::Wait,
            _ => {
                self.malformed.fetch_add(1, Ordering::Relaxed);
                return true;
            }
        };
        // Nobody waits for the second answer to what was sent twice.
        if let Some(waiting) = state.waiting.get_mut(&(from, id)) {
            let _ = waiting.try_send(word);
        }
        true
    }

    fn send(&self, to: Ipv6Addr, kind: u8, id: u64, body: &[u8]) {
        let state = self.state();
        let (Some(out), Some(own)) = (&state.out, state.own) else { return };
        let _ = out.try_send(inside::packet(own, to, MAGIC, kind, &[&id.to_be_bytes(), body].concat()));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn expect(&mut self, agent: Ipv6Addr, word: mpsc::Sender<Word>) -> u64 {
        let id = self.next;
        self.next = self.next.wrapping_add(1);
        self.waiting.insert((agent, id), word);
        id
    }
}

/// A question that is asked no more, however that came.
struct Forget<'a> {
    questions: &'a Questions,
    of: (Ipv6Addr, u64),
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.questions.state().waiting.remove(&self.of);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
    const B: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);
    const C: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 3);

    struct End {
        questions: Arc<Questions>,
        hears: mpsc::Receiver<Heard>,
        out: mpsc::Receiver<Vec<u8>>,
    }

    fn end(own: Ipv6Addr) -> End {
        let (questions, hears) = Questions::new();
        let (out, leaves) = mpsc::channel(HEARD + 64);
        questions.leave_by(out);
        questions.set_own(own);
        End { questions, hears, out: leaves }
    }

    fn asking(end: &End, agent: Ipv6Addr) -> tokio::task::JoinHandle<(Option<Vec<u8>>, Duration)> {
        let (questions, begun) = (end.questions.clone(), Instant::now());
        tokio::spawn(async move { (questions.ask(agent, b"what?").await, begun.elapsed()) })
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_is_answered_by_whom_it_was_asked_of() {
        let (mut a, mut b) = (end(A), end(B));
        let asked = asking(&a, B);
        assert!(b.questions.consume(&a.out.recv().await.unwrap()));
        let heard = b.hears.recv().await.unwrap();
        assert_eq!((heard.from, &heard.body[..]), (A, &b"what?"[..]));
        // Neither somebody else, nor an answer to another question, nor one for another agent.
        let id = heard.id.to_be_bytes();
        for (from, to, id) in [(C, A, id), (B, C, id), (B, A, heard.id.wrapping_add(1).to_be_bytes())] {
            assert!(a.questions.consume(&inside::packet(
                from,
                to,
                MAGIC,
                ANSWER,
                &[&id[..], b"no"].concat()
            )));
        }
        b.questions.answer(&heard, b"this");
        assert!(a.questions.consume(&b.out.recv().await.unwrap()));
        assert_eq!(asked.await.unwrap().0.as_deref(), Some(&b"this"[..]));
        assert!(a.questions.state().waiting.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_that_is_lost_is_sent_again_and_given_up_after_three_seconds() {
        let (mut a, mut b) = (end(A), end(B));
        let asked = asking(&a, B);
        let mut sent = Vec::new();
        for _ in 0..3 {
            sent.push(a.out.recv().await.unwrap());
        }
        assert!(sent.iter().all(|packet| packet == &sent[0]));
        assert_eq!(asked.await.unwrap(), (None, SILENCE));
        assert!(a.out.try_recv().is_err());

        let asked = asking(&a, B);
        for lost in [true, true, false] {
            let packet = a.out.recv().await.unwrap();
            if !lost {
                b.questions.consume(&packet);
            }
        }
        b.questions.answer(&b.hears.recv().await.unwrap(), b"at last");
        a.questions.consume(&b.out.recv().await.unwrap());
        assert_eq!(asked.await.unwrap().0.as_deref(), Some(&b"at last"[..]));
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_that_there_will_be_an_answer_is_waited_for_and_not_for_ever() {
        let (mut a, mut b) = (end(A), end(B));
        let asked = asking(&a, B);
        b.questions.consume(&a.out.recv().await.unwrap());
        let heard = b.hears.recv().await.unwrap();
        b.questions.wait(&heard);
        a.questions.consume(&b.out.recv().await.unwrap());
        assert_eq!(asked.await.unwrap(), (None, PATIENCE));
        assert_eq!(std::iter::from_fn(|| a.out.try_recv().ok()).count(), 3, "it is asked again meanwhile");
    }

    #[tokio::test(start_paused = true)]
    async fn without_an_overlay_nothing_is_asked_and_nobody_is_waited_for_longer() {
        let (questions, _hears) = Questions::new();
        let begun = Instant::now();
        assert_eq!(questions.ask(B, b"what?").await, None);
        assert_eq!(begun.elapsed(), SILENCE);
    }

    #[test]
    fn what_is_malformed_or_too_much_is_dropped_and_counted() {
        let mut a = end(A);
        let consumed = |packet: Vec<u8>| assert!(a.questions.consume(&packet));
        consumed(inside::packet(B, A, MAGIC, QUESTION, &[1; 7]));
        consumed(inside::packet(B, A, MAGIC, QUESTION, &[1; ID + BODY + 1]));
        consumed(inside::packet(B, A, MAGIC, 9, &[1; 8]));
        assert_eq!((a.questions.malformed(), a.questions.lost()), (3, 0));
        for _ in 0..HEARD + 5 {
            consumed(inside::packet(B, A, MAGIC, QUESTION, &[1; ID + BODY]));
        }
        // Those for others are none of ours.
        consumed(inside::packet(B, C, MAGIC, QUESTION, &[1; 8]));
        assert_eq!((a.questions.malformed(), a.questions.lost()), (3, 5));
        assert_eq!(std::iter::from_fn(|| a.hears.try_recv().ok()).count(), HEARD);
        assert!(!a.questions.consume(&inside::packet(B, A, *b"SLPR\x01", QUESTION, &[1; 8])));
        assert!(inside::packet(B, A, MAGIC, ANSWER, &[1; ID + BODY]).len() <= 1280);
    }
}
