use crate::spec::Spec;
use relisten::address::Endpoint;
use serde::{Deserialize, Serialize};
use std::ops::Deref;

/// What a generation runs with: its options, and the addresses that their names stood for when it began.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Plan {
    pub(super) spec: Spec,
    /// As they are in force, port 0 settled. In the order of the options.
    pub(super) endpoints: Vec<Endpoint>,
}

impl Deref for Plan {
    type Target = Spec;

    fn deref(&self) -> &Spec {
        &self.spec
    }
}
