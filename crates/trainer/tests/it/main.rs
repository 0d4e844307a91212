//! The command line as a user and a script see it: exit codes, output, and files. The data set is the machine's own.

mod failures;
mod runs;
mod support;
mod usage;
mod verify_training;
