//! The functions of Bake's standard library that need nothing but their arguments.

use hcl::Value;
use hcl::eval::{Context, Func, FuncArgs, FuncDef, ParamType};

type Returned = Result<Value, String>;

/// Name, function, kinds of the first arguments, kind of those that follow.
type Entry = (&'static str, Func, &'static [ParamType], Option<ParamType>);

const TEXT: ParamType = ParamType::String;
const NUMBER: ParamType = ParamType::Number;
const ANY: ParamType = ParamType::Any;

/// All of them.
const FUNCTIONS: &[Entry] = &[
    ("add", |args| arithmetic(&args, |a, b| a + b), &[NUMBER, NUMBER], None),
    ("and", |args| flags(&args, |a, b| a && b), &[ParamType::Bool, ParamType::Bool], None),
    ("coalesce", coalesce, &[], Some(ANY)),
    ("coalescelist", coalescelist, &[], Some(ANY)),
    ("compact", compact, &[ANY], None),
    ("concat", concat, &[], Some(ANY)),
    ("contains", |args| Ok(list(&args[0])?.contains(&args[1]).into()), &[ANY, ANY], None),
    ("distinct", distinct, &[ANY], None),
    ("equal", |args| Ok((args[0] == args[1]).into()), &[ANY, ANY], None),
    ("flatten", |args| Ok(Value::Array(flat(list(&args[0])?))), &[ANY], None),
    ("greaterthan", |args| compare(&args, |a, b| a > b), &[NUMBER, NUMBER], None),
    ("join", join, &[TEXT], Some(ANY)),
    (
        "keys",
        |args| Ok(Value::Array(object(&args[0])?.keys().cloned().map(Value::from).collect())),
        &[ANY],
        None,
    ),
    ("length", length, &[ANY], None),
    ("lessthan", |args| compare(&args, |a, b| a < b), &[NUMBER, NUMBER], None),
    ("lookup", lookup, &[ANY, TEXT, ANY], None),
    ("lower", |args| Ok(text(&args[0]).to_lowercase().into()), &[TEXT], None),
    ("merge", merge, &[], Some(ANY)),
    ("multiply", |args| arithmetic(&args, |a, b| a * b), &[NUMBER, NUMBER], None),
    ("not", |args| Ok((!args[0].as_bool().unwrap_or_default()).into()), &[ParamType::Bool], None),
    ("notequal", |args| Ok((args[0] != args[1]).into()), &[ANY, ANY], None),
    ("or", |args| flags(&args, |a, b| a || b), &[ParamType::Bool, ParamType::Bool], None),
    (
        "replace",
        |args| Ok(text(&args[0]).replace(text(&args[1]), text(&args[2])).into()),
        &[TEXT, TEXT, TEXT],
        None,
    ),
    ("reverse", |args| Ok(text(&args[0]).chars().rev().collect::<String>().into()), &[TEXT], None),
    ("sanitize", |args| Ok(sanitize(text(&args[0])).into()), &[TEXT], None),
    ("sort", sort, &[ANY], None),
    ("split", split, &[TEXT, TEXT], None),
    ("strlen", |args| Ok((text(&args[0]).chars().count() as u64).into()), &[TEXT], None),
    ("substr", substr, &[TEXT, NUMBER, NUMBER], None),
    ("subtract", |args| arithmetic(&args, |a, b| a - b), &[NUMBER, NUMBER], None),
    ("trim", trim, &[TEXT, TEXT], None),
    ("trimprefix", trimprefix, &[TEXT, TEXT], None),
    ("trimspace", |args| Ok(text(&args[0]).trim().into()), &[TEXT], None),
    ("trimsuffix", trimsuffix, &[TEXT, TEXT], None),
    ("upper", |args| Ok(text(&args[0]).to_uppercase().into()), &[TEXT], None),
    ("values", |args| Ok(Value::Array(object(&args[0])?.values().cloned().collect())), &[ANY], None),
];

/// Their names.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    FUNCTIONS.iter().map(|(name, ..)| *name)
}

/// Makes them known.
pub(super) fn declare(context: &mut Context<'static>) {
    for (name, function, first, rest) in FUNCTIONS {
        let mut definition = FuncDef::builder().params(first.iter().cloned());
        if let Some(rest) = rest {
            definition = definition.variadic_param(rest.clone());
        }
        context.declare_func(hcl::Identifier::sanitized(*name), definition.build(*function));
    }
}

/// A text; the kinds of arguments are checked before.
fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> Result<&[Value], String> {
    value.as_array().map(Vec::as_slice).ok_or_else(|| format!("`{value}` is not a list"))
}

fn object(value: &Value) -> Result<&hcl::Map<String, Value>, String> {
    value.as_object().ok_or_else(|| format!("`{value}` is not an object"))
}

fn number(value: &Value) -> f64 {
    value.as_number().and_then(hcl::Number::as_f64).unwrap_or_default()
}

fn arithmetic(args: &FuncArgs, work: fn(f64, f64) -> f64) -> Returned {
    let result = work(number(&args[0]), number(&args[1]));
    // Whole numbers stay whole: `1` and not `1.0` in a tag.
    match result.fract() == 0.0 && result.abs() < 9e15 {
        true => Ok((result as i64).into()),
        false => Ok(result.into()),
    }
}

fn compare(args: &FuncArgs, work: fn(f64, f64) -> bool) -> Returned {
    Ok(work(number(&args[0]), number(&args[1])).into())
}

fn flags(args: &FuncArgs, work: fn(bool, bool) -> bool) -> Returned {
    let flag = |value: &Value| value.as_bool().unwrap_or_default();
    Ok(work(flag(&args[0]), flag(&args[1])).into())
}

/// The first that is neither null nor an empty text.
fn coalesce(args: FuncArgs) -> Returned {
    let some = |value: &&Value| !value.is_null() && value.as_str() != Some("");
    args.iter().find(some).cloned().ok_or_else(|| "all of them are empty".to_owned())
}

fn coalescelist(args: FuncArgs) -> Returned {
    let some = |value: &&Value| value.as_array().is_some_and(|items| !items.is_empty());
    args.iter().find(some).cloned().ok_or_else(|| "all of them are empty".to_owned())
}

fn compact(args: FuncArgs) -> Returned {
    let some = |value: &&Value| !value.is_null() && value.as_str() != Some("");
    Ok(Value::Array(list(&args[0])?.iter().filter(some).cloned().collect()))
}

fn concat(args: FuncArgs) -> Returned {
    let lists: Vec<&[Value]> = args.iter().map(list).collect::<Result<_, _>>()?;
    Ok(Value::Array(lists.concat()))
}

fn distinct(args: FuncArgs) -> Returned {
    let mut found: Vec<Value> = Vec::new();
    for item in list(&args[0])? {
        if !found.contains(item) {
            found.push(item.clone());
        }
    }
    Ok(Value::Array(found))
}

fn flat(items: &[Value]) -> Vec<Value> {
    let flat_one = |item: &Value| match item {
        Value::Array(items) => flat(items),
        other => vec![other.clone()],
    };
    items.iter().flat_map(flat_one).collect()
}

fn join(args: FuncArgs) -> Returned {
    let mut words = Vec::new();
    for items in &args[1..] {
        for item in list(items)? {
            words.push(match item {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            });
        }
    }
    Ok(words.join(text(&args[0])).into())
}

fn length(args: FuncArgs) -> Returned {
    match &args[0] {
        Value::Array(items) => Ok((items.len() as u64).into()),
        Value::Object(fields) => Ok((fields.len() as u64).into()),
        Value::String(text) => Ok((text.chars().count() as u64).into()),
        other => Err(format!("`{other}` has no length")),
    }
}

fn lookup(args: FuncArgs) -> Returned {
    Ok(object(&args[0])?.get(text(&args[1])).unwrap_or(&args[2]).clone())
}

fn merge(args: FuncArgs) -> Returned {
    let mut merged = hcl::Map::new();
    for value in args.iter() {
        merged.extend(object(value)?.clone());
    }
    Ok(Value::Object(merged))
}

/// As Bake has it for tags: what is no letter, digit, `_` or `-` becomes `_`.
fn sanitize(text: &str) -> String {
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    text.chars().map(|c| if word(c) { c } else { '_' }).collect()
}

fn sort(args: FuncArgs) -> Returned {
    let mut words: Vec<String> = list(&args[0])?.iter().map(|item| text(item).to_owned()).collect();
    words.sort();
    Ok(Value::Array(words.into_iter().map(Value::from).collect()))
}

fn split(args: FuncArgs) -> Returned {
    let (separator, whole) = (text(&args[0]), text(&args[1]));
    if separator.is_empty() {
        return Ok(Value::Array(whole.chars().map(|c| c.to_string().into()).collect()));
    }
    Ok(Value::Array(whole.split(separator).map(Value::from).collect()))
}

/// From so many characters on, so many; a negative offset counts from the end, a negative length means all.
fn substr(args: FuncArgs) -> Returned {
    let characters: Vec<char> = text(&args[0]).chars().collect();
    let (offset, length) = (number(&args[1]), number(&args[2]));
    let offset = if offset < 0.0 { characters.len() as f64 + offset } else { offset };
    let rest = characters.into_iter().skip(offset.max(0.0) as usize);
    Ok(match length < 0.0 {
        true => rest.collect::<String>(),
        false => rest.take(length as usize).collect::<String>(),
    }
    .into())
}

fn trim(args: FuncArgs) -> Returned {
    let cut: Vec<char> = text(&args[1]).chars().collect();
    Ok(text(&args[0]).trim_matches(&cut[..]).into())
}

fn trimprefix(args: FuncArgs) -> Returned {
    let whole = text(&args[0]);
    Ok(whole.strip_prefix(text(&args[1])).unwrap_or(whole).into())
}

fn trimsuffix(args: FuncArgs) -> Returned {
    let whole = text(&args[0]);
    Ok(whole.strip_suffix(text(&args[1])).unwrap_or(whole).into())
}
