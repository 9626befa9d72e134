//! The regorus Rego v1 engine behind a plain C ABI: handles, and UTF-8 or JSON text in and out.
//!
//! The host is single-threaded and calls one function at a time. Every call that takes a handle answers a status; the
//! text that belongs to it (a value as JSON, or the error) stands at `result_pointer` until the next call.
//! A panic is reported through the import `panicked` and ends in a trap; the instance must not be used again after it.

mod engines;
mod host;
mod memory;

use core::{
    num::{NonZeroU32, NonZeroUsize},
    time::Duration,
};
use engines::{with_engine, Outcome};
use memory::text_at;
use regorus::{
    utils::limits::{ExecutionTimerConfig, PolicyLengthConfig},
    Engine, Value,
};

const FLAG_STRICT_BUILTIN_ERRORS: u32 = 1;
const FLAG_GATHER_PRINTS: u32 = 2;

fn message(error: impl core::fmt::Display) -> String {
    error.to_string()
}

fn as_json(value: &Value) -> Outcome {
    if *value == Value::Undefined {
        return Ok(None);
    }
    value.to_json_str().map(Some).map_err(message)
}

/// Makes an engine. `flags`: 1 = a failing builtin is an error instead of undefined, 2 = collect what `print` says.
#[no_mangle]
pub extern "C" fn engine_create(flags: u32) -> u32 {
    host::initialise();
    let mut engine = Engine::new();
    engine.set_strict_builtin_errors(flags & FLAG_STRICT_BUILTIN_ERRORS != 0);
    engine.set_gather_prints(flags & FLAG_GATHER_PRINTS != 0);
    engines::insert(engine)
}

/// Copies an engine with its policies, data and functions. 0 where there is no such engine.
#[no_mangle]
pub extern "C" fn engine_clone(handle: u32) -> u32 {
    engines::duplicate(handle)
}

#[no_mangle]
pub extern "C" fn engine_drop(handle: u32) {
    engines::remove(handle);
}

/// Sets the limits of an engine. `milliseconds` of evaluation (looked at once per `check_every` units of work), and the
/// size of a policy text. 0 leaves a limit as it is.
#[no_mangle]
pub extern "C" fn engine_set_limits(
    handle: u32,
    milliseconds: u32,
    check_every: u32,
    max_bytes: usize,
    max_lines: usize,
    max_columns: u32,
) -> i32 {
    with_engine(handle, |engine| {
        if let (1.., Some(check_interval)) = (milliseconds, NonZeroU32::new(check_every)) {
            let limit = Duration::from_millis(milliseconds.into());
            engine.set_execution_timer_config(ExecutionTimerConfig { limit, check_interval });
        }
        let unset = PolicyLengthConfig::default();
        engine.set_policy_length_config(PolicyLengthConfig {
            max_col: NonZeroU32::new(max_columns).unwrap_or(unset.max_col),
            max_file_bytes: NonZeroUsize::new(max_bytes).unwrap_or(unset.max_file_bytes),
            max_lines: NonZeroUsize::new(max_lines).unwrap_or(unset.max_lines),
        });
        Ok(None)
    })
}

/// Parses and adds a policy module; answers its package, e.g. `data.policy`.
///
/// # Safety
/// Both pointers come from `memory_allocate` with these lengths.
#[no_mangle]
pub unsafe extern "C" fn engine_add_policy(
    handle: u32,
    name: *const u8,
    name_length: usize,
    source: *const u8,
    source_length: usize,
) -> i32 {
    with_engine(handle, |engine| {
        let (name, source) = (text_at(name, name_length)?, text_at(source, source_length)?);
        engine.add_policy(name, source).map(Some).map_err(message)
    })
}

/// Merges a JSON object into `data`.
///
/// # Safety
/// The pointer comes from `memory_allocate` with this length.
#[no_mangle]
pub unsafe extern "C" fn engine_add_data(handle: u32, json: *const u8, length: usize) -> i32 {
    with_engine(handle, |engine| {
        engine.add_data_json(&text_at(json, length)?).map_err(message)?;
        Ok(None)
    })
}

/// Sets `input` to a JSON value.
///
/// # Safety
/// The pointer comes from `memory_allocate` with this length.
#[no_mangle]
pub unsafe extern "C" fn engine_set_input(handle: u32, json: *const u8, length: usize) -> i32 {
    with_engine(handle, |engine| {
        engine.set_input_json(&text_at(json, length)?).map_err(message)?;
        Ok(None)
    })
}

/// Evaluates a rule by its full path, e.g. `data.policy.allow`; answers its value as JSON.
///
/// # Safety
/// The pointer comes from `memory_allocate` with this length.
#[no_mangle]
pub unsafe extern "C" fn engine_eval_rule(handle: u32, path: *const u8, length: usize) -> i32 {
    with_engine(handle, |engine| {
        as_json(&engine.eval_rule(text_at(path, length)?).map_err(message)?)
    })
}

/// Evaluates a query; answers regorus' result set as JSON: `{"result":[{"expressions":[…],"bindings":{…}}]}`.
///
/// # Safety
/// The pointer comes from `memory_allocate` with this length.
#[no_mangle]
pub unsafe extern "C" fn engine_eval_query(handle: u32, query: *const u8, length: usize) -> i32 {
    with_engine(handle, |engine| {
        let results = engine.eval_query(text_at(query, length)?, false).map_err(message)?;
        serde_json::to_string(&results).map(Some).map_err(message)
    })
}

/// Answers what `print` said since the last call, as a JSON array of text, and forgets it.
#[no_mangle]
pub extern "C" fn engine_take_prints(handle: u32) -> i32 {
    with_engine(handle, |engine| {
        let prints = engine.take_prints().map_err(message)?;
        serde_json::to_string(&prints).map(Some).map_err(message)
    })
}

/// Makes a function of the host callable by policies of this engine and of its later clones.
///
/// # Safety
/// The pointer comes from `memory_allocate` with this length.
#[no_mangle]
pub unsafe extern "C" fn engine_add_function(handle: u32, name: *const u8, length: usize, arity: u32) -> i32 {
    with_engine(handle, |engine| {
        let name = text_at(name, length)?;
        let arity = u8::try_from(arity).map_err(message)?;
        let called = name.clone();
        let function = Box::new(move |arguments: Vec<Value>| host::call(&called, arguments));
        engine.add_extension(name, arity, function).map_err(message)?;
        Ok(None)
    })
}
