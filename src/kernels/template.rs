//! The text of a kernel from a `kernel.wgsl` and its constants.
//!
//! A register tile wants loops over *names* (`acc_0_0`, `acc_0_1`, ..): an array indexed in a loop may
//! end in slow memory, and whether a driver unrolls is its own affair. So `kernel.wgsl` files are WGSL
//! with directives in comment lines, expanded here:
//!
//! ```wgsl
//! //# for i in 0..ROWS
//! var acc_${i} = vec4<${float}>();
//! //# end
//! //# if bias
//! ..
//! //# else
//! ..
//! //# end
//! ```
//!
//! Integer expressions know `+ - * / %`, comparisons, `&& || !` and parentheses; a condition is any
//! expression that is not zero.

use std::collections::BTreeMap;
use std::fmt::Write;

/// A constant of a kernel.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Value {
    /// A number for expressions; conditions are 0 and 1.
    Number(i64),
    /// A piece of text, as a type's name.
    Text(&'static str),
}

impl From<usize> for Value {
    fn from(value: usize) -> Self {
        Self::Number(value as i64)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Number(i64::from(value))
    }
}

impl From<&'static str> for Value {
    fn from(value: &'static str) -> Self {
        Self::Text(value)
    }
}

/// Constants by name.
pub type Scope = BTreeMap<String, Value>;

/// Expands `text` with the constants of `scope`.
///
/// # Panics
/// When a directive or an expression is wrong: kernels are part of the program.
pub fn expand(text: &str, scope: &Scope) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let mut output = String::with_capacity(text.len() * 4);
    expand_lines(&lines, &mut scope.clone(), &mut output);
    output
}

fn expand_lines(lines: &[&str], scope: &mut Scope, output: &mut String) {
    let mut i = 0;
    while i < lines.len() {
        let Some(directive) = lines[i].trim_start().strip_prefix("//#") else {
            substitute(lines[i], scope, output);
            output.push('\n');
            i += 1;
            continue;
        };
        let (middle, end) = block(lines, i);
        let directive = directive.trim();
        if let Some(header) = directive.strip_prefix("for ") {
            let (name, range) = header.split_once(" in ").expect("`for NAME in FROM..TO`");
            let (from, to) = range.split_once("..").expect("`for NAME in FROM..TO`");
            let outer = scope.get(name).cloned();
            for value in number(from, scope)..number(to, scope) {
                scope.insert(name.to_owned(), Value::Number(value));
                expand_lines(&lines[i + 1..end], scope, output);
            }
            match outer {
                Some(outer) => scope.insert(name.to_owned(), outer),
                None => scope.remove(name),
            };
        } else if let Some(condition) = directive.strip_prefix("if ") {
            let split = middle.unwrap_or(end);
            if number(condition, scope) != 0 {
                expand_lines(&lines[i + 1..split], scope, output);
            } else if split < end {
                expand_lines(&lines[split + 1..end], scope, output);
            }
        } else {
            panic!("unknown directive `{directive}`");
        }
        i = end + 1;
    }
}

/// The lines of the `else`, if any, and the `end` that belong to the directive on line `start`.
fn block(lines: &[&str], start: usize) -> (Option<usize>, usize) {
    let mut depth = 0;
    let mut middle = None;
    for (i, line) in lines.iter().enumerate().skip(start + 1) {
        let Some(directive) = line.trim_start().strip_prefix("//#") else { continue };
        match directive.trim() {
            "end" if depth == 0 => return (middle, i),
            "end" => depth -= 1,
            "else" if depth == 0 => middle = Some(i),
            "else" => {}
            _ => depth += 1,
        }
    }
    panic!("`{}` has no end", lines[start].trim());
}

fn substitute(line: &str, scope: &Scope, output: &mut String) {
    let mut rest = line;
    while let Some(start) = rest.find("${") {
        output.push_str(&rest[..start]);
        let length = rest[start..].find('}').expect("`${` has its `}`");
        let expression = &rest[start + 2..start + length];
        match scope.get(expression.trim()) {
            Some(Value::Text(text)) => output.push_str(text),
            _ => write!(output, "{}", number(expression, scope)).expect("a string grows"),
        }
        rest = &rest[start + length + 1..];
    }
    output.push_str(rest);
}

/// The value of an integer expression.
fn number(expression: &str, scope: &Scope) -> i64 {
    let mut parser = Parser { text: expression.trim(), scope };
    let value = parser.binary(0);
    assert!(parser.text.is_empty(), "`{expression}` is no expression");
    value
}

/// Binary operators by rising precedence; longer ones first where one begins another.
const OPERATORS: [&[&str]; 5] =
    [&["||"], &["&&"], &["==", "!=", "<=", ">=", "<", ">"], &["+", "-"], &["*", "/", "%"]];

struct Parser<'a> {
    text: &'a str,
    scope: &'a Scope,
}

impl Parser<'_> {
    fn binary(&mut self, level: usize) -> i64 {
        let Some(operators) = OPERATORS.get(level) else { return self.unary() };
        let mut left = self.binary(level + 1);
        while let Some(operator) = operators.iter().find(|o| self.text.starts_with(**o)) {
            self.skip(operator.len());
            let right = self.binary(level + 1);
            left = match *operator {
                "||" => i64::from(left != 0 || right != 0),
                "&&" => i64::from(left != 0 && right != 0),
                "==" => i64::from(left == right),
                "!=" => i64::from(left != right),
                "<=" => i64::from(left <= right),
                ">=" => i64::from(left >= right),
                "<" => i64::from(left < right),
                ">" => i64::from(left > right),
                "+" => left + right,
                "-" => left - right,
                "*" => left * right,
                "/" => left / right,
                _ => left % right,
            };
        }
        left
    }

    fn unary(&mut self) -> i64 {
        if self.text.starts_with('!') {
            self.skip(1);
            return i64::from(self.unary() == 0);
        }
        if self.text.starts_with('(') {
            self.skip(1);
            let value = self.binary(0);
            assert!(self.text.starts_with(')'), "a parenthesis is open before `{}`", self.text);
            self.skip(1);
            return value;
        }
        let length =
            self.text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(self.text.len());
        let word = &self.text[..length];
        let value = match (word.parse(), self.scope.get(word)) {
            (Ok(number), _) | (_, Some(&Value::Number(number))) => number,
            _ => panic!("`{word}` is no number in this kernel"),
        };
        self.skip(length);
        value
    }

    fn skip(&mut self, length: usize) {
        self.text = self.text[length..].trim_start();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope() -> Scope {
        let values: [(&str, Value); 3] =
            [("N", 2usize.into()), ("float", "f16".into()), ("bias", true.into())];
        values.map(|(name, value)| (name.to_owned(), value)).into()
    }

    #[test]
    fn loops_conditions_and_values_expand() {
        let text = "//# for i in 0..N\n\
                    var a${i}: ${float} = ${(i + 1) * 10 % 7};\n\
                    //# if bias && i == 1\n\
                    b\n\
                    //# else\n\
                    c\n\
                    //# end\n\
                    //# end\n";
        assert_eq!(expand(text, &scope()), "var a0: f16 = 3;\nc\nvar a1: f16 = 6;\nb\n");
    }

    #[test]
    fn operators_bind_as_in_rust() {
        for (expression, value) in
            [("1 + 2 * 3", 7), ("8 / 2 - 1", 3), ("!bias || N >= 2", 1), ("(N + 2) != 4", 0)]
        {
            assert_eq!(number(expression, &scope()), value, "{expression}");
        }
    }
}
