//! What the emulated driver can do, and what it catches. Each test runs the program of this package in a process of its own.

mod controls;
mod program;
mod right;
