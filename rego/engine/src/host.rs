//! What the host provides: functions for policies, the monotonic clock of the execution limit, a place for panics.

use crate::memory::{memory_free, text_at};
use anyhow::{anyhow, Result};
use core::time::Duration;
use regorus::{
    utils::limits::{set_time_source, TimeSource},
    Value,
};
use std::sync::Once;

#[link(wasm_import_module = "host")]
extern "C" {
    /// Milliseconds of a clock that never goes back.
    fn monotonic_clock_ms() -> f64;
    /// Tells the host the text of a panic; a trap follows.
    fn panicked(message: *const u8, length: usize);
    /// Calls a function of the host with a JSON array of arguments. The host allocates its answer with
    /// `memory_allocate`, writes pointer and length to `answer`, and returns 0 for a JSON value, 1 for undefined and 2
    /// for the text of an error.
    fn call_function(
        name: *const u8,
        name_length: usize,
        arguments: *const u8,
        arguments_length: usize,
        answer: *mut [usize; 2],
    ) -> i32;
}

struct HostClock;

impl TimeSource for HostClock {
    fn now(&self) -> Option<Duration> {
        // SAFETY: the import takes nothing and returns a number.
        Duration::try_from_secs_f64(unsafe { monotonic_clock_ms() } / 1000.0).ok()
    }
}

static CLOCK: HostClock = HostClock;

/// Wires clock and panic message, once.
pub fn initialise() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // It fails only where a clock is set already, and then it is this one.
        let _ = set_time_source(&CLOCK);
        std::panic::set_hook(Box::new(|panic| {
            let text = panic.to_string();
            // SAFETY: the host reads `length` bytes during the call.
            unsafe { panicked(text.as_ptr(), text.len()) }
        }));
    });
}

/// Calls the host's function `name`.
pub fn call(name: &str, arguments: Vec<Value>) -> Result<Value> {
    let arguments = Value::from(arguments).to_json_str()?;
    let mut answer = [0usize; 2];
    // SAFETY: the host reads the two texts and writes `answer` during the call.
    let status = unsafe {
        call_function(name.as_ptr(), name.len(), arguments.as_ptr(), arguments.len(), &mut answer)
    };
    let [pointer, length] = answer;
    let text = if pointer == 0 {
        String::new()
    } else {
        // SAFETY: the host allocated it with `memory_allocate(length)` and hands it over.
        unsafe {
            let text = text_at(pointer as *const u8, length).map_err(|error| anyhow!(error))?;
            memory_free(pointer as *mut u8, length);
            text
        }
    };
    match status {
        0 => Value::from_json_str(&text),
        1 => Ok(Value::Undefined),
        _ => Err(anyhow!(text)),
    }
}
