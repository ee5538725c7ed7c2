//! The supervisor as a total function of state and event.
//!
//! Every [`Event`] is answered in every state by a list of [`Action`]s. There is no I/O and no clock here: time
//! comes in with the event, and [`Instance::deadline`] says when the next [`Event::Tick`] is wanted. That is
//! what lets a simulated kernel drive the supervisor through millions of random schedules
//! (`tests/simulation.rs`).
//!
//! # Slots and workers
//!
//! A slot names up to three workers: the *incumbent*, who has the place; the *candidate*, who takes it over when
//! ready, in a reload or a replacement; and during a reload the *previous* incumbent, who is held for a
//! roll-back. A worker that no slot names is leaving. What happens to a worker depends on its [`State`] and on
//! that part:
//!
//! | event | starting, incumbent | starting, candidate | ready (incumbent) | leaving, held (previous) | leaving | stopping | lost |
//! |---|---|---|---|---|---|---|---|
//! | `Ready` | ready | ready, takes over; the incumbent leaves, or is held in a reload | – | – | – | – | – |
//! | `Quiet` | – | – | – | – (asked anew at commit) | stop signal, unless it stops by itself | – | – |
//! | `Exited`, `SpawnFailed` | lost; successor after back-off | failed; release | lost; successor at once | release | release | release; an incumbent is lost, successor when its back-off is over | – |
//! | `Stopping` | stop signal; successor when it is gone | leaves; failed | leaves by itself; successor at once | leaves by itself | – | – | – |
//! | `Unhealthy` | – | – | to be replaced | – | – | – | – |
//! | its time is over | not ready in time: stop signal | not ready in time: leaves; failed | to be recycled | (no limit) | drain is over: stop signal | grace is over: SIGKILL | next try |
//! | reload is carried through | – | – | – | leaves | – | – | – |
//! | reload is taken back | – | leaves | of the new generation: leaves, or stays until replaced if its predecessor is gone | ready again | – | – | – |
//! | slot is surplus | leaves | leaves | leaves, once another serves | leaves | – | – | release, once another serves |
//! | `Stop` | leaves | leaves | leaves | leaves | goes on | goes on | release |
//! | second `Stop`, `StopNow` | stop signal | stop signal | stop signal | stop signal | stop signal | goes on | release |
//!
//! "–": nothing. "Leaves": gets [`Action::AwaitQuiet`], later the stop signal; one that never listened gets it at
//! once, and so does everyone where nothing can steer. "Failed": in a reload, if the worker is of the new
//! generation, the whole reload is taken back; else the replacement is tried again after the back-off, or given
//! up if a request asked for it. Whatever happens to a ready worker of the new generation before the reload is
//! carried through (exit, `Stopping`, `Unhealthy`) takes the reload back as well. "Release": while nobody serves
//! and no worker that stays has a listener, its listeners are kept until somebody does.
//!
//! [`Event::Spawned`] and [`Event::Listening`] only note what they say. Events about workers that are not known
//! are answered by nothing.
//!
//! # Reload
//!
//! At most one generation is starting. A request with an identity takes the unfinished reload back and begins at
//! once; signals are remembered, all of them as one reload that follows. A worker that failed in one slot never
//! costs another slot its worker: taking back puts the held predecessor into service in the same step, and where
//! there is none any more, the new generation's worker serves until one of the old generation can.
//!
//! # Order
//!
//! Decisions are taken slot by slot, their effects are sorted: start and put back, steer, ask for quiet, signal,
//! release, answer. See `step.rs`.

mod action;
mod event;
mod fill;
mod ids;
mod instance;
mod leave;
mod lives;
mod reload;
mod requests;
mod settings;
mod slot;
mod step;
mod views;
mod worker;

pub use action::{Action, Outcome, Record, Signal};
pub use event::{Event, ExitStatus, Request};
pub use ids::{Millis, RequestId, WorkerId};
pub use instance::{Instance, MAX_WORKERS};
pub use settings::{Backoff, Settings};
pub use slot::Slot;
pub use views::Phase;
pub use worker::{State, Worker};
