//! A kernel's signature, read from its PTX, and the arguments that should fit it.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

use candle_core::{Error, Result};

use super::Module;
use super::argument::{Argument, Kind};

/// Signatures by module and kernel: PTX is long, and a kernel is launched often.
type Signatures = HashMap<(&'static str, String), Vec<Kind>>;

static KNOWN: LazyLock<Mutex<Signatures>> = LazyLock::new(Mutex::default);

/// # Errors
/// Where count or types of the arguments differ from the signature.
pub(super) fn check(module: &Module, kernel: &str, arguments: &[Argument<'_>]) -> Result<()> {
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let key = (module.name, kernel.to_owned());
    let signature = match known.get(&key) {
        Some(signature) => signature,
        None => {
            let read = read(module.ptx, kernel).ok_or_else(|| {
                Error::msg(format!(
                    "module {} has no kernel {kernel} whose signature can be read",
                    module.name
                ))
                .bt()
            })?;
            known.entry(key).or_insert(read)
        }
    };
    let given: Vec<_> = arguments.iter().map(Argument::kind).collect();
    if given == *signature {
        return Ok(());
    }
    let at = given
        .iter()
        .zip(signature)
        .position(|(given, wanted)| given != wanted)
        .unwrap_or(given.len().min(signature.len()));
    Err(Error::msg(format!(
        "kernel {kernel} takes {} arguments and got {}; argument {at} should be {:?} and is {:?}",
        signature.len(),
        given.len(),
        signature.get(at),
        given.get(at)
    ))
    .bt())
}

/// The parameters of `.entry kernel(.param .u64 .ptr .align 1 name, .param .u32 name, ...)`; none if there is no such kernel or
/// a parameter is of a type that we pass none of.
fn read(ptx: &str, kernel: &str) -> Option<Vec<Kind>> {
    let parameters = ptx.match_indices(".entry ").find_map(|(at, word)| {
        let rest = ptx[at + word.len()..].trim_start().strip_prefix(kernel)?;
        Some(rest.trim_start().strip_prefix('(')?.split_once(')')?.0)
    })?;
    parameters
        .split(',')
        .filter(|parameter| !parameter.trim().is_empty())
        .map(|parameter| {
            let mut words = parameter.split_whitespace();
            if words.next() != Some(".param") {
                return None;
            }
            match words.next()? {
                ".u64" | ".s64" | ".b64" => Some(Kind::Bits64),
                ".u32" | ".s32" | ".b32" => Some(Kind::Bits32),
                ".f32" => Some(Kind::F32),
                ".f64" => Some(Kind::F64),
                _ => None,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODULE: Module = Module {
        name: "signature-test",
        ptx: ".visible .entry longer(\n\t.param .u32 longer_param_0\n)\n{ }\n.visible .entry none(\n\n)\n{ }\n\
              .visible .entry odd(\n\t.param .u16 odd_param_0\n)\n{ }\n\
              .visible .entry long(\n\t.param .u64 .ptr .align 1 long_param_0,\n\t.param .f32 long_param_1,\n\
              \t.param .u32 long_param_2\n)\n.maxntid 128\n{ }\n",
    };

    #[test]
    fn arguments_of_the_signature_pass() {
        check(&MODULE, "long", &[Argument::Null, 1f32.into(), 1u32.into()]).unwrap();
        check(&MODULE, "longer", &[1u32.into()]).unwrap();
        check(&MODULE, "none", &[]).unwrap();
    }

    #[test]
    fn a_missing_argument_a_wrong_type_and_a_surplus_one_are_refused() {
        let wrong: [&[Argument<'_>]; 5] = [
            &[Argument::Null, 1f32.into()],
            &[Argument::Null, 1f64.into(), 1u32.into()],
            &[Argument::Null, 1f32.into(), 1u64.into()],
            &[1u32.into(), 1f32.into(), 1u32.into()],
            &[Argument::Null, 1f32.into(), 1u32.into(), 1u32.into()],
        ];
        for arguments in wrong {
            let error = check(&MODULE, "long", arguments).unwrap_err().to_string();
            assert!(error.contains("kernel long takes 3 arguments"), "{error}");
        }
    }

    #[test]
    fn an_unknown_kernel_and_an_unknown_type_are_refused() {
        for kernel in ["lon", "odd", "absent"] {
            let error = check(&MODULE, kernel, &[]).unwrap_err().to_string();
            assert!(error.contains(kernel), "{error}");
        }
    }
}
