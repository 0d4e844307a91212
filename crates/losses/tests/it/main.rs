//! What a user of the crate can measure from outside: the memory that cross entropy takes.

mod memory;
