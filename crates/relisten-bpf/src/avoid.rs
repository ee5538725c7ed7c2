use std::ops::BitOr;

/// Why a listener is to be avoided; several reasons can hold at once. With none it gets connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Avoid(pub(crate) u32);

impl Avoid {
    /// It gets connections.
    pub const NOTHING: Self = Self(0);
    /// Not in service: not ready yet, or nobody's.
    pub const OUT: Self = Self(1 << 0);
    /// Its worker is leaving.
    pub const DRAINING: Self = Self(1 << 1);
    /// Its worker may hang.
    pub const SUSPECTED: Self = Self(1 << 2);
    /// Its worker hangs.
    pub const HUNG: Self = Self(1 << 3);
    /// Its queue is full: a SYN would be dropped.
    pub const FULL: Self = Self(1 << 4);

    /// All of them.
    pub(crate) const ALL: Self = Self(0b1_1111);

    /// As the programs know it (`enum relisten_avoid`).
    pub fn bits(self) -> u32 {
        self.0
    }

    /// Do all of these reasons hold?
    pub fn contains(self, reasons: Self) -> bool {
        self.0 & reasons.0 == reasons.0
    }

    /// Does none hold?
    pub fn is_nothing(self) -> bool {
        self.0 == 0
    }
}

impl BitOr for Avoid {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}
