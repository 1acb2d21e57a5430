//! The part of Python's pickle machine that files of tensors need. It builds data and calls
//! nothing: of what a pickle can name, only [`Global`]s are known.
//!
//! Source: CPython `Lib/pickletools.py` for the opcodes; torch `_weights_only_unpickler.py` for
//! which of them tensors need.

use std::collections::HashMap;

use super::cursor::{Cursor, Result, text};
use super::graph::{Global, Graph, Value};

/// Runs the program that starts at `at`; returns what it leaves and where it ends.
pub fn run<'a>(graph: &mut Graph<'a>, program: &'a [u8], at: usize) -> Result<(Value<'a>, usize)> {
    let mut machine = Machine {
        graph,
        cursor: Cursor::new(program, at),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
    };
    let value = machine.run()?;
    let end = machine.cursor.position();
    Ok((value, end))
}

struct Machine<'g, 'a> {
    graph: &'g mut Graph<'a>,
    cursor: Cursor<'a>,
    stack: Vec<Value<'a>>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u32, Value<'a>>,
}

impl<'a> Machine<'_, 'a> {
    fn run(&mut self) -> Result<Value<'a>> {
        loop {
            self.graph.spend(1)?;
            let operation = self.cursor.u8()?;
            if operation == b'.' {
                return self.pop();
            }
            self.step(operation)?;
        }
    }

    fn step(&mut self, operation: u8) -> Result<()> {
        let value = match operation {
            // PROTO, FRAME
            0x80 => return self.cursor.u8().map(drop),
            0x95 => return self.cursor.u64().map(drop),
            b'(' => {
                self.marks.push(self.stack.len());
                return Ok(());
            }
            b'0' => return self.pop().map(drop),
            b'1' => return self.pop_mark().map(drop),
            b'2' => self.top()?,
            b'N' => Value::None,
            0x88 => Value::Bool(true),
            0x89 => Value::Bool(false),
            b'J' => Value::Int(i32::from_le_bytes(self.cursor.array()?).into()),
            b'K' => Value::Int(self.cursor.u8()?.into()),
            b'M' => Value::Int(self.cursor.u16()?.into()),
            b'I' => match self.cursor.line()? {
                "00" => Value::Bool(false),
                "01" => Value::Bool(true),
                digits => integer(digits)?,
            },
            b'L' => integer(self.cursor.line()?.trim_end_matches('L'))?,
            0x8a => {
                let length = self.cursor.u8()?.into();
                long(self.cursor.take(length)?)?
            }
            b'G' => Value::Float(f64::from_be_bytes(self.cursor.array()?)),
            // BINUNICODE, SHORT_BINUNICODE, BINUNICODE8; BINSTRING, SHORT_BINSTRING (Python 2)
            b'X' | b'T' => {
                let length = self.cursor.u32()? as usize;
                Value::Text(text(self.cursor.take(length)?)?)
            }
            0x8c | b'U' => {
                let length = self.cursor.u8()?.into();
                Value::Text(text(self.cursor.take(length)?)?)
            }
            0x8d => {
                let length = self.cursor.u64()?;
                Value::Text(text(self.cursor.take(length)?)?)
            }
            // BINBYTES, SHORT_BINBYTES
            b'B' => {
                let length = self.cursor.u32()? as usize;
                self.cursor.take(length)?;
                Value::Bytes
            }
            b'C' => {
                let length = self.cursor.u8()?.into();
                self.cursor.take(length)?;
                Value::Bytes
            }
            b')' | b']' => self.graph.new_items(Vec::new()),
            b't' | b'l' => {
                let items = self.pop_mark()?;
                self.graph.new_items(items)
            }
            0x85..=0x87 => {
                let items = self.pop_many(usize::from(operation - 0x84))?;
                self.graph.new_items(items)
            }
            b'}' => self.graph.new_dict(Vec::new()),
            b'd' => {
                let entries = pairs(&self.pop_mark()?)?;
                self.graph.new_dict(entries)
            }
            b'a' => {
                let items = self.pop_many(1)?;
                return self.append(items);
            }
            b'e' => {
                let items = self.pop_mark()?;
                return self.append(items);
            }
            b's' => {
                let items = self.pop_many(2)?;
                return self.set_items(&items);
            }
            b'u' => {
                let items = self.pop_mark()?;
                return self.set_items(&items);
            }
            b'c' => {
                let (module, name) = (self.cursor.line()?, self.cursor.line()?);
                Value::Global(Global::find(module, name)?)
            }
            0x93 => match self.pop_many(2)?.as_slice() {
                [Value::Text(module), Value::Text(name)] => {
                    Value::Global(Global::find(module, name)?)
                }
                _ => return Err("a global whose name is no text".into()),
            },
            b'R' => {
                let arguments = self.pop()?;
                let Value::Global(global) = self.pop()? else {
                    return Err("a call of what is no function".into());
                };
                self.graph.reduce(global, arguments)?
            }
            // A state dictionary's `_metadata` attribute is set this way; nothing here needs it.
            b'b' => {
                self.pop()?;
                return match self.top()? {
                    Value::Dict(_) => Ok(()),
                    _ => Err("BUILD on what is no dictionary".into()),
                };
            }
            b'Q' => {
                let id = self.pop()?;
                self.graph.storage(id)?
            }
            b'h' => self.recall(|cursor| cursor.u8().map(u32::from))?,
            b'j' => self.recall(Cursor::u32)?,
            b'q' => return self.memoize(|cursor| cursor.u8().map(u32::from)),
            b'r' => return self.memoize(Cursor::u32),
            0x94 => {
                let next = self.memo.len() as u32;
                return self.memoize(|_| Ok(next));
            }
            _ => return Err(format!("opcode 0x{operation:02x}, which tensors do not need")),
        };
        self.stack.push(value);
        Ok(())
    }

    /// The height below which the current mark does not let pop.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or_default()
    }

    fn pop(&mut self) -> Result<Value<'a>> {
        self.top()?;
        self.stack.pop().ok_or_else(|| "an empty stack".into())
    }

    fn top(&self) -> Result<Value<'a>> {
        let above = self.stack.len() > self.floor();
        self.stack.last().copied().filter(|_| above).ok_or_else(|| "an empty stack".into())
    }

    fn pop_many(&mut self, count: usize) -> Result<Vec<Value<'a>>> {
        let start = self.stack.len().checked_sub(count).filter(|start| *start >= self.floor());
        Ok(self.stack.split_off(start.ok_or("an empty stack")?))
    }

    fn pop_mark(&mut self) -> Result<Vec<Value<'a>>> {
        let mark = self.marks.pop().ok_or("no mark on the stack")?;
        Ok(self.stack.split_off(mark))
    }

    fn append(&mut self, items: Vec<Value<'a>>) -> Result<()> {
        let list = self.top()?;
        self.graph.extend(list, items)
    }

    fn set_items(&mut self, items: &[Value<'a>]) -> Result<()> {
        let entries = pairs(items)?;
        let dict = self.top()?;
        self.graph.set(dict, entries)
    }

    fn recall(&mut self, index: impl Fn(&mut Cursor<'a>) -> Result<u32>) -> Result<Value<'a>> {
        let index = index(&mut self.cursor)?;
        self.memo.get(&index).copied().ok_or_else(|| format!("nothing is memorised as {index}"))
    }

    fn memoize(&mut self, index: impl Fn(&mut Cursor<'a>) -> Result<u32>) -> Result<()> {
        let index = index(&mut self.cursor)?;
        let value = self.top()?;
        self.memo.insert(index, value);
        Ok(())
    }
}

fn pairs<'a>(items: &[Value<'a>]) -> Result<Vec<(Value<'a>, Value<'a>)>> {
    let (pairs, rest) = items.as_chunks::<2>();
    if !rest.is_empty() {
        return Err("a key without a value".into());
    }
    Ok(pairs.iter().map(|[key, value]| (*key, *value)).collect())
}

fn integer<'a>(digits: &str) -> Result<Value<'a>> {
    digits.parse().map(Value::Int).map_err(|_| format!("`{digits:.40}` is no integer"))
}

/// Two's complement, little-endian, of as many bytes as it takes.
fn long<'a>(bytes: &[u8]) -> Result<Value<'a>> {
    let mut wide = match bytes.last() {
        Some(last) if last & 0x80 != 0 => [0xff; 16],
        _ => [0; 16],
    };
    let part = wide.get_mut(..bytes.len()).ok_or("an integer of more than 128 bits")?;
    part.copy_from_slice(bytes);
    Ok(Value::Int(i128::from_le_bytes(wide)))
}
