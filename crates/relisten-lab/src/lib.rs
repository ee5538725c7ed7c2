//! relisten-lab
#![forbid(unsafe_code)]

pub mod load;
