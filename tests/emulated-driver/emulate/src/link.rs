//! Linking kernels: static shared memory in one place, with room between its variables and a map of them.
//!
//! g++ puts each function-local variable without initial value into a section of its own (`-fdata-sections`); in device code
//! those are the shared variables and nothing else. An attribute would be simpler, but g++ ignores it in templates.
//!
//! To a variable whose type has constructors, as the half types have, g++ gives a guard, which says whether it has been
//! constructed, even where there is nothing to do for that. The guards are gathered too, and the driver sets them all
//! beforehand.

use crate::Error;
use crate::compile::{compiler, run, write};
use std::path::Path;
use std::process::Command;

/// How the sections of function-local variables begin.
const LOCAL_VARIABLES: &str = ".bss._ZZ";

/// How the sections of their guards begin.
const GUARDS: &str = ".bss._ZGVZ";

/// Between variables, so that a step past the end of one hits no other.
const GAP_BYTES: usize = 64;

/// Links `object` into the library `built`.
pub(crate) fn kernels(object: &Path, built: &Path) -> Result<(), Error> {
    let script = built.with_extension("ld");
    write(&script, &linker_script(&shared_variables(object)?))?;
    // Without the sanitizers' flags: their runtime stays out, the driver has the hooks.
    run(
        Command::new(compiler())
            .args(["-shared", "-Wl,-Bsymbolic"])
            .arg(object)
            .arg(format!("-Wl,-T,{}", script.display()))
            .arg("-o")
            .arg(built),
        object,
    )?;
    let _ = std::fs::remove_file(script);
    Ok(())
}

/// The sections of an object that hold shared variables.
fn shared_variables(object: &Path) -> Result<Vec<String>, Error> {
    let output = Command::new("objdump")
        .arg("-hw")
        .arg(object)
        .output()
        .map_err(|error| {
            Error::new(format!("cannot start objdump, a part of binutils: {error}"))
        })?;
    if !output.status.success() {
        return Err(Error::new(format!(
            "objdump cannot read {}: {}",
            object.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        )));
    }
    // `  3 .bss._ZZ4nameE5array 00000100 ...`
    let mut sections: Vec<_> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1))
        .filter(|name| name.starts_with(LOCAL_VARIABLES))
        .map(str::to_owned)
        .collect();
    sections.sort();
    sections.dedup();
    Ok(sections)
}

/// Adds to the linker's own script: the variables, where each begins and ends in relation to the first, and their guards.
fn linker_script(sections: &[String]) -> String {
    let mut variables = String::new();
    let mut map = String::new();
    for (index, section) in sections.iter().enumerate() {
        variables.push_str(&format!(
            "    . = ALIGN(128);\n    cuda_emu_begin_{index} = .;\n    *({section})\n    \
             cuda_emu_end_{index} = .;\n    . = . + {GAP_BYTES};\n"
        ));
        for end in ["begin", "end"] {
            map.push_str(&format!(
                "    QUAD(cuda_emu_{end}_{index} - __start_cuda_emu_shared)\n"
            ));
        }
    }
    format!(
        "SECTIONS {{\n  cuda_emu_shared (NOLOAD) : ALIGN(128) {{\n    __start_cuda_emu_shared = .;\n{variables}    \
         __stop_cuda_emu_shared = .;\n  }}\n}} INSERT AFTER .bss;\n\
         SECTIONS {{\n  cuda_emu_shared_map : ALIGN(8) {{\n    __start_cuda_emu_shared_map = .;\n{map}    \
         __stop_cuda_emu_shared_map = .;\n  }}\n}} INSERT AFTER .data;\n\
         SECTIONS {{\n  cuda_emu_guards (NOLOAD) : ALIGN(8) {{\n    __start_cuda_emu_guards = .;\n    *({GUARDS}*)\n    \
         __stop_cuda_emu_guards = .;\n  }}\n}} INSERT AFTER .bss;\n"
    )
}
