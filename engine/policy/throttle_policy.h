// How much of its CPU time a guest is left that writes faster than its pages can be sent: the
// "stunning of rogue processes" of Clark et al. (NSDI 2005, section 5.5), done to virtual CPUs.
//
//   ThrottlePolicy policy;
//   double share = policy.Slower(dirty_bytes_a_second, sent_bytes_a_second);  // of each CPU
//
// The guest gets as much as keeps its writing at three quarters of what is sent, by the figures of
// the round; where they prove wrong, the next call takes off more. Pure.
#pragma once

namespace ramferry {

class ThrottlePolicy {
 public:
  // Less leaves a guest that looks dead to its clients; give up instead.
  static constexpr double kLeastShare = 0.05;

  // The share of each virtual CPU's time that the guest keeps now: 1 is all of it.
  [[nodiscard]] double share() const { return share_; }
  [[nodiscard]] bool at_least() const { return share_ <= kLeastShare; }

  // The guest did not converge in a round in which it wrote, and we sent, so many bytes a second.
  double Slower(double dirtied, double sent);

 private:
  double share_ = 1;
};

}  // namespace ramferry
