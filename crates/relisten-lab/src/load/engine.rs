//! Starting requests: closed loop by clients, open loop by the clock.

use super::attempt::{Connection, Outcome, attempt, backoff, close};
use super::pacer::Pacer;
use super::tally::Tally;
use super::tls::Tls;
use super::{Fate, KeepAlive, Pace, Plan, SourceRange, TlsError};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

const BUFFER: usize = 16 * 1024;

/// What all tasks of a run share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) plan: Plan,
    pub(super) tls: Option<Tls>,
    pub(super) request: Vec<u8>,
    pub(super) last_request: Vec<u8>,
    pub(super) sources: Vec<SourceRange>,
    pub(super) source_counter: AtomicU64,
    claimed: AtomicU64,
    stop: watch::Sender<bool>,
    tally: Mutex<Tally>,
    buffers: Mutex<Vec<Vec<u8>>>,
}

impl Shared {
    pub(super) fn new(plan: Plan) -> Result<Shared, TlsError> {
        Ok(Shared {
            tls: plan.target.tls.then(|| Tls::new(plan.target.server_name(), &plan.trust)).transpose()?,
            request: plan.request(plan.keep_alive == KeepAlive::Off),
            last_request: plan.request(true),
            sources: plan.effective_sources(),
            source_counter: AtomicU64::new(0),
            claimed: AtomicU64::new(0),
            stop: watch::Sender::new(false),
            tally: Mutex::new(Tally::new()),
            buffers: Mutex::new(Vec::new()),
            plan,
        })
    }

    /// The counts. Held for moments only: one thread counts, others look.
    pub(super) fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// No request is started after this.
    pub(super) fn stop(&self) {
        self.stop.send_replace(true);
    }

    fn is_stopped(&self) -> bool {
        *self.stop.borrow()
    }

    async fn stopped(&self) {
        // The sender lives in self, so this cannot fail.
        let _ = self.stop.subscribe().wait_for(|&stopped| stopped).await;
    }

    /// Whether one more request may start; counts it if so.
    fn claim(&self) -> bool {
        match self.plan.requests {
            None => true,
            Some(limit) => self
                .claimed
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |claimed| {
                    (claimed < limit).then_some(claimed + 1)
                })
                .is_ok(),
        }
    }

    fn take_buffer(&self) -> Vec<u8> {
        let mut buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        buffers.pop().unwrap_or_else(|| vec![0; BUFFER])
    }

    fn give_buffer(&self, buffer: Vec<u8>) {
        self.buffers.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
    }
}

/// Runs the plan on the present runtime until its end or a stop, and until every request has its fate.
pub(super) async fn drive(shared: &Arc<Shared>) -> io::Result<()> {
    let began = Instant::now();
    let deadline = shared.plan.duration.map(|duration| began + duration);
    match shared.plan.pace {
        Pace::Clients(clients) => {
            let mut tasks = JoinSet::new();
            for _ in 0..clients {
                tasks.spawn(client(Arc::clone(shared), deadline));
            }
            join(&mut tasks).await;
            Ok(())
        }
        Pace::Rate(rate) => open_loop(shared, rate, began, deadline).await,
    }
}

/// One closed-loop client.
async fn client(shared: Arc<Shared>, deadline: Option<Instant>) {
    let mut buffer = vec![0; BUFFER];
    let mut kept = None;
    let goes_on = || !shared.is_stopped() && deadline.is_none_or(|deadline| Instant::now() < deadline);
    while goes_on() && shared.claim() {
        request(&shared, &mut kept, &mut buffer, Instant::now()).await;
        if !shared.plan.pause.is_zero() {
            let left = deadline.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()));
            tokio::select! {
                () = sleep(shared.plan.pause.min(left)) => {}
                () = shared.stopped() => {}
            }
        }
    }
    close(&shared, &mut kept);
}

/// Starts connections by the clock. Both times count from one moment: or a machine that is busy between them would cost
/// the last ones.
async fn open_loop(
    shared: &Arc<Shared>,
    rate: f64,
    began: Instant,
    deadline: Option<Instant>,
) -> io::Result<()> {
    let pacer = Pacer::new()?;
    let mut tasks = JoinSet::new();
    for number in 0_u64.. {
        let due = began + Duration::from_secs_f64(number as f64 / rate);
        if deadline.is_some_and(|deadline| due >= deadline) {
            // Wait for the end all the same, so that a stop is not needed and the length is as asked.
            break;
        }
        tokio::select! {
            result = pacer.wait_until(due) => result?,
            () = shared.stopped() => break,
        }
        if shared.is_stopped() || !shared.claim() {
            break;
        }
        while tasks.try_join_next().is_some() {}
        if tasks.len() >= shared.plan.max_open {
            not_started(shared);
        } else {
            tasks.spawn(session(Arc::clone(shared), due));
        }
        if number % 16 == 15 {
            // When behind, many are due at once: let those already started get on.
            tokio::task::yield_now().await;
        }
    }
    join(&mut tasks).await;
    Ok(())
}

/// One connection of the open loop with all its requests.
async fn session(shared: Arc<Shared>, due: Instant) {
    let mut buffer = shared.take_buffer();
    let mut kept = None;
    request(&shared, &mut kept, &mut buffer, due).await;
    for _ in 1..shared.plan.keep_alive.limit() {
        if kept.is_none() || shared.is_stopped() || !shared.claim() {
            break;
        }
        request(&shared, &mut kept, &mut buffer, Instant::now()).await;
    }
    close(&shared, &mut kept);
    shared.give_buffer(buffer);
}

/// One request with its retries. `due` is when it should have started.
async fn request(shared: &Shared, kept: &mut Option<Connection>, buffer: &mut [u8], due: Instant) {
    shared.tally().request_started();
    let mut began = due;
    let mut tries = 0;
    let served = loop {
        shared.tally().attempt_started();
        let outcome = attempt(shared, kept, buffer).await;
        tries += 1;
        let fate = outcome.fate;
        let again = tries <= shared.plan.retry && is_worth_retrying(&shared.plan, &outcome);
        shared.tally().attempt_ended(outcome, began.elapsed());
        if fate == Fate::Completed {
            break true;
        }
        if !again {
            break false;
        }
        sleep(backoff(shared.plan.backoff, tries - 1)).await;
        began = Instant::now();
    };
    shared.tally().request_ended(served, tries, due.elapsed());
}

/// What a careful client would try again.
fn is_worth_retrying(plan: &Plan, outcome: &Outcome) -> bool {
    match outcome.fate {
        Fate::Completed | Fate::Malformed => false,
        Fate::WrongStatus => matches!(outcome.status, 429 | 502 | 503 | 504),
        fate => plan.is_idempotent() || fate.is_before_request(),
    }
}

fn not_started(shared: &Shared) {
    let mut tally = shared.tally();
    tally.request_started();
    tally.attempt_started();
    let outcome = Outcome {
        fate: Fate::NotStarted,
        status: 0,
        label: None,
        error: Some("too many open connections".to_owned()),
        received: 0,
        on_reused: false,
    };
    tally.attempt_ended(outcome, Duration::ZERO);
    tally.request_ended(false, 1, Duration::ZERO);
}

/// Waits for all tasks. One that panicked has left the counts wrong, so the panic goes on.
async fn join(tasks: &mut JoinSet<()>) {
    while let Some(result) = tasks.join_next().await {
        if let Err(error) = result
            && let Ok(panic) = error.try_into_panic()
        {
            std::panic::resume_unwind(panic);
        }
    }
}
