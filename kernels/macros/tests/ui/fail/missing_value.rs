#[ringhold::actor]
pub mod probe {
    pub struct State {
        pub total: i64,
        pub items: [u32; 8],
    }

    pub enum Message {
        Add { value: i64 },
        Read,
    }

    fn one() -> i64 {
        1;
    }

    fn two() -> i64 {
        let x = 2;
    }

    fn three(x: i64) -> i64 {
        while x > 0 {}
    }

    fn four() -> i64 {
        return;
    }

    fn five() -> i64 {}

    fn six() {
        return 5;
    }

    fn seven() {
        7
    }

    fn eight() -> i64 {
        5u32
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {}
}

fn main() {}
