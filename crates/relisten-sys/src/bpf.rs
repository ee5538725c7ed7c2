//! eBPF objects by descriptor: maps, programs and links that somebody has loaded. Loading is not done here.

mod call;
mod map;
mod program;
mod shared;

pub use map::{Map, MapInfo, map_type};
pub use program::{ProgramInfo, attach_reuseport, attach_sock_ops, enable_run_time_stats};
pub use shared::SharedArray;
