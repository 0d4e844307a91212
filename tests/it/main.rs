//! Whole-workspace tests: what a user sees of the commands, and what the tree promises about itself.

mod dependencies;
mod tidy;
mod training;
mod workspace;
mod xtask;
