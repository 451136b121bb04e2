#include "launch/step_times.h"

#include <chrono>
#include <thread>

#include <gtest/gtest.h>

namespace duoflow::launch {
namespace {

void spend(double ms) { std::this_thread::sleep_for(std::chrono::duration<double, std::milli>(ms)); }

TEST(StepTimes, LapsSumToTheStep) {
  StepTimes times;
  times.begin();
  spend(2);
  times.lap(Stage::data);
  spend(4);
  times.lap(Stage::forward);
  times.lap(Stage::backward);
  spend(2);
  times.lap(Stage::forward);
  auto const step = times.step_ms();
  EXPECT_GE(times.ms(Stage::data), 2);
  EXPECT_GE(times.ms(Stage::forward), 6);  // both laps
  EXPECT_LE(times.ms(Stage::data) + times.ms(Stage::forward) + times.ms(Stage::backward), step);
  EXPECT_EQ(times.ms(Stage::optimizer), 0);
}

TEST(StepTimes, WhatABackwardWaitsForOthersIsCommunication) {
  StepTimes times;
  times.begin();
  spend(10);
  times.lap(Stage::backward, 4);
  EXPECT_EQ(times.ms(Stage::communication), 4);
  EXPECT_GE(times.ms(Stage::backward), 6);
  EXPECT_LE(times.ms(Stage::backward) + times.ms(Stage::communication), times.step_ms());
}

TEST(StepTimes, TheFirstStepIsNotInTheMeans) {
  StepTimes times;
  times.begin();
  spend(20);
  times.lap(Stage::forward);
  times.end();
  EXPECT_EQ(times.summary(), "");
  times.begin();
  times.lap(Stage::optimizer);
  times.end();
  EXPECT_EQ(times.steps(), 1);
  EXPECT_NE(times.summary().find("forward 0.00, backward 0.00, exposed communication 0.00"), std::string::npos)
      << times.summary();
}

}  // namespace
}  // namespace duoflow::launch
