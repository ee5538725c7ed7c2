//! What people read: tables, units, colours.

mod list;
mod status;
mod style;
mod table;
mod units;

pub(crate) use list::list;
pub(crate) use status::status;
pub(crate) use style::Paint;
pub(crate) use table::{Cell, Table};
pub(crate) use units::printable;
