//! One operator or method, straight on the state: so that a set of programs has them all, at every width.

use super::{
    BINARY, COMPARE, FLOAT_METHODS, Generator, METHODS_1, METHODS_2, METHODS_SIGNED, METHODS_U32, Type, all_features,
    signed, unsigned,
};

/// In one program. Programs of neighbouring seeds have different ones; 200 of them have all.
const DRILLS: usize = 3;

impl Generator {
    /// The drills of the program with this seed.
    pub(super) fn drills(&mut self, seed: u64) -> Vec<String> {
        let features = all_features();
        let features: Vec<_> = features.iter().filter_map(|feature| feature.rsplit_once(' ')).collect();
        let features: Vec<_> = features.into_iter().filter(|(op, ty)| drillable(op, ty)).collect();
        let first = seed as usize % features.len() * DRILLS;
        (first..first + DRILLS).map(|at| self.drill(features[at % features.len()])).collect()
    }

    /// `state.of_T = a op b;`
    fn drill(&mut self, (op, of): (&str, &str)) -> String {
        self.note(format!("{op} {of}"));
        let ty = self.scalar_named(of);
        let a = self.expr(&ty, 1);
        let (text, gives) = match op {
            "as f32" | "as f64" => (format!("({a} as {})", &op[3..]), &op[3..]),
            "from f32" | "from f64" => {
                let float = self.scalar_named(&op[5..]);
                (format!("({} as {of})", self.expr(&float, 1)), of)
            }
            _ if op.starts_with("as ") => (format!("({a} as {})", &op[3..]), &op[3..]),
            "!" => (format!("(!{a})"), of),
            "-" if signed(of) && self.random.chance(50) => (format!("(-{a})"), of),
            "<<" | ">>" => {
                let count = Type::Int(self.int());
                (format!("({a} {op} {})", self.expr(&count, 1)), of)
            }
            "/" | "%" => match ty {
                Type::Int(int) => (format!("({a} {op} {})", self.divisor(int, 1)), of),
                _ => (format!("({a} {op} {})", self.expr(&ty, 1)), of),
            },
            _ if COMPARE.contains(&op) => (format!("({a} {op} {})", self.expr(&ty, 1)), "bool"),
            _ if BINARY.contains(&op) => (format!("({a} {op} {})", self.expr(&ty, 1)), of),
            "is_positive" | "is_negative" | "is_power_of_two" | "is_nan" => (format!("{a}.{op}()"), "bool"),
            "leading_zeros" | "trailing_zeros" | "count_ones" | "count_zeros" => (format!("{a}.{op}()"), "u32"),
            "abs_diff" => (format!("{a}.{op}({})", self.expr(&ty, 1)), unsigned(of)),
            "unsigned_abs" => (format!("{a}.{op}()"), unsigned(of)),
            "div_euclid" | "rem_euclid" => match ty {
                Type::Int(int) => (format!("{a}.{op}({})", self.divisor(int, 1)), of),
                _ => unreachable!("integers only"),
            },
            "clamp" => (format!("{a}.clamp(3 as {of}, 3 as {of} + {} as {of})", self.random.below(90)), of),
            "mul_add" => (format!("{a}.mul_add({}, {})", self.expr(&ty, 1), self.expr(&ty, 1)), of),
            "to_bits" => (format!("{a}.to_bits()"), if of == "f32" { "u32" } else { "u64" }),
            "from_bits" => {
                let bits = Type::Int(if of == "f32" { "u32" } else { "u64" });
                (format!("{of}::from_bits({})", self.expr(&bits, 1)), of)
            }
            _ if METHODS_2.contains(&op) || op == "min" || op == "max" => {
                (format!("{a}.{op}({})", self.expr(&ty, 1)), of)
            }
            _ if METHODS_U32.contains(&op) => (format!("{a}.{op}({})", self.expr(&Type::Int("u32"), 1)), of),
            _ => (format!("{a}.{op}()"), of),
        };
        format!("state.of_{gives} = {text};")
    }

    fn scalar_named(&self, name: &str) -> Type {
        match name {
            "f32" => Type::Float("f32"),
            "f64" => Type::Float("f64"),
            _ => Type::Int(super::INTS.into_iter().find(|int| *int == name).expect("the name of an integer")),
        }
    }
}

/// Whether it is an operator or a method of one number type.
fn drillable(op: &str, ty: &str) -> bool {
    let of_numbers = super::INTS.contains(&ty) || ty == "f32" || ty == "f64";
    let named = ["!", "clamp", "mul_add", "from_bits", "to_bits", "is_nan", "is_power_of_two", "min", "max"];
    let known = BINARY.contains(&op)
        || COMPARE.contains(&op)
        || METHODS_1.contains(&op)
        || METHODS_2.contains(&op)
        || METHODS_U32.contains(&op)
        || METHODS_SIGNED.contains(&op)
        || FLOAT_METHODS.contains(&op)
        || named.contains(&op)
        || op.starts_with("as ")
        || op.starts_with("from ");
    of_numbers && known
}
