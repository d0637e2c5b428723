//! JSON request bodies (RFC 8259): what routing and limits read of them, edits by offset, one
//! spelling for all that mean the same, and writing of it.

mod canonical;
mod canonical_number;
mod canonical_string;
mod cursor;
mod error;
mod grammar;
mod number;
mod peek;
mod remote_input;
mod rewrite;
mod scan;
mod skip;
mod splice;
mod string;
pub mod write;

pub use canonical::{Canonical, canonical};
pub use cursor::{Cursor, Fault, MAX_DEPTH};
pub use error::JsonError;
pub use number::integer;
pub use peek::{Peek, Place, Places, Span, peek};
pub use remote_input::remote_input;
pub use rewrite::{Cap, Change, Changes, RewriteError, as_edit, changes, rewrite};
pub use splice::{Edit, SpliceError, splice, splice_into, spliced_length};
pub use string::Text;
