//! A simulated kernel, runtime and clients that drive the core. See `simulation.rs`.

mod anything;
mod check;
mod clients;
mod deeds;
mod kernel;
mod lives;
mod plan;
mod process;
mod rng;
mod runtime;
mod world;

pub(crate) use anything::anything_goes;
pub(crate) use world::World;
