//! From CUDA to C++: rewriting the preprocessed text of a `.cu`.
//!
//! `device/emulated_cuda.h` turns `__global__` and `__shared__` into marker words. Here the markers become C++: static shared
//! memory becomes static variables, which the linker gathers ([`crate::link`]); dynamic shared memory becomes a pointer to
//! what the launch asked for; and every kernel with C linkage is registered at the end of the text. Line markers
//! stay, so messages name the lines of the `.cu`.

use crate::Error;
use std::collections::BTreeSet;

const GLOBAL: &str = "CUDA_EMU_MARK_GLOBAL";
const SHARED: &str = "CUDA_EMU_MARK_SHARED";

/// What a barrier makes wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarrierKind {
    /// `__syncthreads()`
    Block,
    /// `__syncwarp()`
    Warp,
}

/// A barrier in the text of a kernel file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Barrier {
    /// What waits.
    pub kind: BarrierKind,
    /// The line in its file.
    pub line: usize,
    /// Where its expression lies in the preprocessed text.
    pub(crate) range: std::ops::Range<usize>,
}

/// Turns preprocessed text into C++ that registers its kernels.
pub(crate) fn rewrite(text: &str) -> Result<String, Error> {
    let kernels = kernels(text);
    if kernels.is_empty() {
        return Err(Error::new(
            "no `extern \"C\" __global__ void` kernel is in it",
        ));
    }
    let mut output = shared_memory(text)?;
    // The word stood where nvcc wants `__global__`; C++ wants nothing there.
    output = output.replace(GLOBAL, "");
    output.push_str("\n# 1 \"<kernels>\"\n");
    for name in kernels {
        output.push_str(&format!(
            "static cuda_emu::Registration<&{name}> cuda_emu_registration_of_{name}(\"{name}\");\n"
        ));
    }
    Ok(output)
}

/// The names of the kernels with C linkage.
fn kernels(text: &str) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    for (at, _) in text.match_indices(GLOBAL) {
        // A template or a C++ name cannot be asked of a module by its plain name.
        if text[..at].trim_end().ends_with("extern \"C\"") {
            names.extend(declared_name(&text[at + GLOBAL.len()..]));
        }
    }
    names
}

/// The first identifier that a parameter list follows, past return types and attributes.
fn declared_name(text: &str) -> Option<&str> {
    let mut rest = text.trim_start();
    loop {
        if rest.starts_with('#') {
            // A line marker within the declaration.
            rest = rest.split_once('\n')?.1.trim_start();
            continue;
        }
        let end = rest
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let after = after.trim_start();
        match word {
            "" => return None,
            "__attribute__" | "alignas" => rest = after_group(after)?.trim_start(),
            _ if after.starts_with('(') => return Some(word),
            _ => rest = after,
        }
    }
}

/// What follows a parenthesised group that `text` begins with.
fn after_group(text: &str) -> Option<&str> {
    let mut depth = 0usize;
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(&text[at + 1..]);
                }
            }
            _ if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

/// Rewrites every declaration of shared memory.
fn shared_memory(text: &str) -> Result<String, Error> {
    let mut output = String::with_capacity(text.len() + 4096);
    let mut rest = text;
    while let Some(at) = rest.find(SHARED) {
        let (before, after) = (&rest[..at], &rest[at + SHARED.len()..]);
        let trimmed = before.trim_end();
        if let Some(head) = trimmed.strip_suffix("extern") {
            let (declaration, tail) = after
                .split_once(';')
                .ok_or_else(|| Error::new("a declaration of dynamic shared memory has no end"))?;
            output.push_str(head);
            output.push_str(&dynamic_shared(declaration)?);
            rest = tail;
        } else {
            output.push_str(before);
            if !trimmed.ends_with("static") {
                output.push_str("static");
            }
            rest = after;
        }
    }
    output.push_str(rest);
    Ok(output)
}

/// `extern __shared__ T name[];`, of which `declaration` is what lies between the marker and the semicolon.
fn dynamic_shared(declaration: &str) -> Result<String, Error> {
    let unclear = || {
        Error::new(format!(
            "dynamic shared memory is declared as `extern __shared__ TYPE NAME[];`, not as `{}`",
            declaration.trim()
        ))
    };
    let mut plain = String::new();
    let mut rest = declaration;
    // Alignment is given anyway: the driver's buffer is aligned to 128 bytes.
    while let Some(at) = ["__attribute__", "alignas"]
        .iter()
        .filter_map(|word| rest.find(word))
        .min()
    {
        plain.push_str(&rest[..at]);
        let group = &rest[at + rest[at..].find('(').ok_or_else(unclear)?..];
        rest = after_group(group).ok_or_else(unclear)?;
    }
    plain.push_str(rest);
    let (head, size) = plain.rsplit_once('[').ok_or_else(unclear)?;
    let head = head.trim_end();
    let name_at = head
        .rfind(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .ok_or_else(unclear)?
        + 1;
    let (element, name) = (head[..name_at].trim(), &head[name_at..]);
    if size.trim() != "]" || element.is_empty() || name.is_empty() {
        return Err(unclear());
    }
    // A reference, so that it follows the buffer from launch to launch wherever it is declared. Newlines of the
    // declaration are kept for the line numbers.
    let newlines = "\n".repeat(declaration.matches('\n').count());
    Ok(format!(
        "static {element}*& {name} = reinterpret_cast<{element}*&>(cuda_emu_dynamic_shared);{newlines}"
    ))
}

/// The barriers of preprocessed text.
pub(crate) fn barriers(text: &str) -> Vec<Barrier> {
    const BLOCK: &str = "((void)cuda_emu_barrier(BARRIER_PLAIN, 0, ";
    const WARP: &str = "cuda_emu::sync_warp(";
    let mut found = Vec::new();
    for (start, kind) in [(BLOCK, BarrierKind::Block), (WARP, BarrierKind::Warp)] {
        for (at, _) in text.match_indices(start) {
            let arguments = &text[at + start.len()..];
            let digits = arguments
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(arguments.len());
            let Ok(line) = arguments[..digits].parse() else {
                continue;
            };
            // Up to the parenthesis that closes the expression.
            let open = if kind == BarrierKind::Block {
                at
            } else {
                at + start.len() - 1
            };
            let Some(after) = after_group(&text[open..]) else {
                continue;
            };
            found.push(Barrier {
                kind,
                line,
                range: at..text.len() - after.len(),
            });
        }
    }
    found.sort_by_key(|barrier| barrier.range.start);
    found
}

/// The text with one barrier left out.
pub(crate) fn without(text: &str, barrier: &Barrier) -> String {
    let mut output = text.to_owned();
    output.replace_range(barrier.range.clone(), "((void)0)");
    output
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_with_c_linkage_are_registered_and_others_are_not() {
        let text = "extern \"C\" CUDA_EMU_MARK_GLOBAL void  first(int a) {}\n\
                    extern \"C\" CUDA_EMU_MARK_GLOBAL\nvoid __attribute__((x(1)))\n# 7 \"a.cu\"\nsecond (float*) {}\n\
                    template <class T> CUDA_EMU_MARK_GLOBAL void third(T) {}\n\
                    extern \"C\" void fourth() {}\n";
        assert_eq!(
            kernels(text).into_iter().collect::<Vec<_>>(),
            ["first", "second"]
        );
        let output = rewrite(text).unwrap();
        assert!(output.contains("Registration<&second> "), "{output}");
        assert!(!output.contains(GLOBAL), "{output}");
    }

    #[test]
    fn a_file_without_kernels_is_refused() {
        let error = rewrite("int f();").unwrap_err().to_string();
        assert!(error.contains("extern \"C\" __global__"), "{error}");
    }

    #[test]
    fn static_shared_memory_becomes_static_variables() {
        let text = "CUDA_EMU_MARK_SHARED float x[32]; static CUDA_EMU_MARK_SHARED int y;";
        assert_eq!(
            shared_memory(text).unwrap(),
            "static float x[32]; static  int y;"
        );
    }

    #[test]
    fn dynamic_shared_memory_becomes_a_reference_to_the_buffer() {
        let output = shared_memory(
            "void f() { extern CUDA_EMU_MARK_SHARED __attribute__((aligned(16))) unsigned char raw[]; raw[0]; }",
        )
        .unwrap();
        assert!(
            output.contains("static unsigned char*& raw = reinterpret_cast<unsigned char*&>(cuda_emu_dynamic_shared); raw[0]"),
            "{output}"
        );
        let error = shared_memory("extern CUDA_EMU_MARK_SHARED float x;")
            .unwrap_err()
            .to_string();
        assert!(error.contains("`float x`"), "{error}");
    }

    #[test]
    fn each_barrier_can_be_left_out() {
        let text = "a(); ((void)cuda_emu_barrier(BARRIER_PLAIN, 0, 7)); b();\ncuda_emu::sync_warp(9, f(1));";
        let found = barriers(text);
        assert_eq!(
            found.iter().map(|b| (b.kind, b.line)).collect::<Vec<_>>(),
            [(BarrierKind::Block, 7), (BarrierKind::Warp, 9)]
        );
        assert!(without(text, &found[0]).starts_with("a(); ((void)0); b();"));
        assert!(without(text, &found[1]).ends_with("\n((void)0);"));
    }
}
