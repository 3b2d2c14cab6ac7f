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

    impl State {
        fn peek(&self) -> i64 {
            self.total = 1;
            self.total
        }

        fn grow(&mut self) {
            self.total += 1;
        }
    }

    fn read(x: &i64) {
        *x = 1;
        bump(x);
    }

    fn bump(x: &mut i64) {
        *x += 1;
        x = 5;
    }

    fn count(n: u32) {
        n += 1;
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        let a = 1;
        a = 2;
        let b = [1, 2];
        b[0] = 3;
        let c = 5i64;
        bump(&mut c);
        match message {
            Message::Add { value } => value += 1,
            _ => {}
        }
        for i in 0..5 {
            i += 1;
        }
    }
}

fn main() {}
