// Asks again every so often: less where it fails, not at all while nobody looks.

const SLOWEST_MS = 15000;

export class Poll {
  // `look` is awaited, what it throws goes to `failed`.
  constructor(look, every, failed) {
    Object.assign(this, { look, every, failed, wait: every, timer: null, going: false });
    this.ended = false;
    this.seen = () => !document.hidden && this.now();
    document.addEventListener("visibilitychange", this.seen);
    this.now();
  }

  async now() {
    clearTimeout(this.timer);
    if (this.going) {
      this.again = true;
      return;
    }
    this.going = true;
    do {
      this.again = false;
      try {
        await this.look();
        this.wait = this.every;
      } catch (error) {
        if (this.ended) return;
        this.wait = Math.min(this.wait * 2, SLOWEST_MS);
        this.failed(error);
      }
    } while (this.again && !this.ended);
    this.going = false;
    if (!this.ended && !document.hidden) this.timer = setTimeout(() => this.now(), this.wait);
  }

  end() {
    this.ended = true;
    clearTimeout(this.timer);
    document.removeEventListener("visibilitychange", this.seen);
  }
}
