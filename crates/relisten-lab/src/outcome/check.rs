use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A direction that must hold on every machine, such as "EPOLLEXCLUSIVE gives one worker more than half".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Check {
    /// What is looked at.
    pub name: String,
    /// What must be, such as `> 50 %`.
    pub expected: String,
    /// What was.
    pub seen: String,
    /// Is it so?
    pub held: bool,
}
